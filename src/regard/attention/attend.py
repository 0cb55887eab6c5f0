"""The attention operator, `attend`, and its plan, `plan`."""

from typing import Any, overload

import torch
from torch import Tensor

from regard.attention.backends.protocol import Backend
from regard.attention.bias import Bias, TensorBias
from regard.attention.engine import observer
from regard.attention.engine.call import HALVES, Call, make_call
from regard.attention.engine.call_cache import lookup, store
from regard.attention.engine.empty_call import is_empty, run_empty
from regard.attention.engine.foreign_arguments import CALLS, unknown_argument
from regard.attention.engine.tracing import is_jit_tracing
from regard.attention.normalizer import Normalizer
from regard.attention.patterns.pattern import Pattern
from regard.attention.plan import BACKENDS, Plan, choose, make_plan
from regard.attention.score import Score
from regard.attention.spec import PLAIN, AttentionSpec
from regard.attention.summary import Summary, SummaryResult
from regard.errors import UnsupportedError

DOT, SOFTMAX, FULL = PLAIN.score, PLAIN.normalizer, PLAIN.pattern


@overload
def attend(
    query: Tensor, key: Tensor, value: Tensor, *, score: Score = ..., normalizer: Normalizer = ...,
    pattern: Pattern = ..., bias: Bias | Tensor | None = ..., dropout: float = ..., seed: int | Tensor | None = ...,
    query_start: int | Tensor | None = ..., key_start: int = ..., summary: None = ..., backend: str = ...,
) -> Tensor: ...  # fmt: skip


@overload
def attend(
    query: Tensor, key: Tensor, value: Tensor, *, score: Score = ..., normalizer: Normalizer = ...,
    pattern: Pattern = ..., bias: Bias | Tensor | None = ..., dropout: float = ..., seed: int | Tensor | None = ...,
    query_start: int | Tensor | None = ..., key_start: int = ..., summary: Summary, backend: str = ...,
) -> tuple[Tensor, SummaryResult]: ...  # fmt: skip


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    score: Score = DOT,
    normalizer: Normalizer = SOFTMAX,
    pattern: Pattern = FULL,
    bias: Bias | Tensor | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    query_start: int | Tensor | None = None,
    key_start: int = 0,
    summary: Summary | None = None,
    backend: str = "auto",
    **others: object,
) -> Tensor | tuple[Tensor, SummaryResult]:
    """Attention: for each query, a weighted sum of the values, with weights computed from query and keys.

    scores = score(query, key) + bias, hidden where the pattern says so; weights = normalizer(scores) * prior;
    output = dropout(weights) @ value.

    Args:
        query: (B, H, L, E).
        key: (B, G, S, E), where G divides H: each key head serves H / G query heads.
        value: (B, G, S, V).
        score: score function of query and key.
        normalizer: function from a row of scores to a row of weights.
        pattern: which keys a query may attend to.
        bias: term added to the scores: a `Bias`, or a tensor that broadcasts to (B, H, L, S).
        dropout: probability that a weight is dropped, 0 <= dropout < 1. There is no training flag: pass 0.0 in
            evaluation.
        seed: seed of dropout and of the samples of `Hard`: an int or an int64 tensor; by default drawn from torch's
            default generator.
        query_start: position of the first query: an int, or integers (B,), one for each sequence; by default S - L plus
            `key_start`, so that the last query has the position of the last key.
        key_start: position of the first key.
        summary: which statistics of the weights to return besides the output; None for none.
        backend: "auto", or the name of a backend, which raises UnsupportedError where it cannot compute the call.

    Returns:
        The output (B, H, L, V) in the dtype of the query; with a summary, a tuple of the output and a `SummaryResult`.

    Raises:
        ShapeError: tensors whose shapes, dtypes or devices are incompatible.
        ConfigError: an argument that is out of range, unknown, or of the wrong type. For arguments of other libraries,
            such as attn_mask and is_causal, the message says what to write instead.
        UnsupportedError: a backend that cannot compute the call, a summary that is undefined for it, or
            torch.jit.trace.

    Source: Bahdanau et al. 2014, arXiv 1409.0473, equations 5 and 6; Vaswani et al. 2017, arXiv 1706.03762,
    section 3.2.

    >>> query = key = torch.eye(2).reshape(1, 1, 2, 2) * 20
    >>> attend(query, key, torch.tensor([[[[1.0], [2.0]]]])).round().flatten()
    tensor([1., 2.])
    """
    if others:
        raise unknown_argument("attend", others, CALLS, attend)
    if observer.count and not torch.compiler.is_compiling() and (observers := observer.current()):
        arguments: dict[str, Any] = {
            "score": score, "normalizer": normalizer, "pattern": pattern, "bias": bias, "dropout": dropout,
            "seed": seed, "query_start": query_start, "key_start": key_start, "summary": summary, "backend": backend,
        }  # fmt: skip
        with observer.unobserved():
            result: Tensor | tuple[Tensor, SummaryResult] = attend(query, key, value, **arguments)
        return observer.notify(observers, result, query, key, value, arguments)
    values, signature = (score, normalizer, pattern, bias), None
    draws = normalizer is not SOFTMAX and getattr(normalizer, "draws", False)
    if summary is None and type(dropout) in (float, int) and dropout == 0 and not draws:
        signature, cached = lookup(query, key, value, values, query_start, key_start, backend)
        if cached is not None:
            if cached.fast_path is not None and (output := cached.fast_path(query, key, value)) is not None:
                return output
            call = Call(query, key, value, cached.spec, None, cached.query_start, key_start, None)
            return BACKENDS[cached.backend].run(call)[0]
    if is_jit_tracing():
        raise UnsupportedError(
            "torch.jit.trace would record values that a pattern depends on as constants; use torch.export"
        )
    spec = _spec(score, normalizer, pattern, bias, dropout)
    autocast_dtype = _autocast(query)
    if autocast_dtype is None:
        call = make_call(query, key, value, spec, seed, query_start, key_start, summary)
        chosen = choose(call, backend)
        if signature is not None and not is_empty(call):
            store(signature, call, chosen.name, values)
        output, summary_result = _run(call, chosen)
    else:
        with torch.autocast(query.device.type, enabled=False):
            query, key, value = (_cast(x, autocast_dtype) for x in (query, key, value))
            call = make_call(query, key, value, spec, seed, query_start, key_start, summary)
            output, summary_result = _run(call, choose(call, backend))
    return output if summary_result is None else (output, summary_result)


def plan(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    score: Score = DOT,
    normalizer: Normalizer = SOFTMAX,
    pattern: Pattern = FULL,
    bias: Bias | Tensor | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    query_start: int | Tensor | None = None,
    key_start: int = 0,
    summary: Summary | None = None,
    backend: str = "auto",
    **others: object,
) -> Plan:
    """Execution plan of `attend` for these arguments: the backend, why not the others, and the cost.

    Args:
        query: as for `attend`.
        key: as for `attend`.
        value: as for `attend`.
        score: as for `attend`.
        normalizer: as for `attend`.
        pattern: as for `attend`.
        bias: as for `attend`.
        dropout: as for `attend`.
        seed: as for `attend`.
        query_start: as for `attend`.
        key_start: as for `attend`.
        summary: as for `attend`.
        backend: as for `attend`.

    Returns:
        The plan; `print(plan(...).explain())` prints it.

    Raises:
        ShapeError: as for `attend`.
        ConfigError: as for `attend`.
        UnsupportedError: as for `attend`.
    """
    if others:
        raise unknown_argument("plan", others, CALLS, plan)
    spec = _spec(score, normalizer, pattern, bias, dropout)
    autocast_dtype = _autocast(query)
    if autocast_dtype is not None:
        query, key, value = (_cast(x, autocast_dtype) for x in (query, key, value))
    seed = 0 if seed is None else seed  # any value: a plan draws nothing from the generator
    return make_plan(make_call(query, key, value, spec, seed, query_start, key_start, summary), backend)


def _run(call: Call, backend: Backend) -> tuple[Tensor, SummaryResult | None]:
    return run_empty(call, backend.run) if is_empty(call) else backend.run(call)


def _autocast(query: object) -> torch.dtype | None:
    """Autocast's dtype on the query's device; None where autocast is off."""
    if not torch._C._is_any_autocast_enabled():  # three times as fast as a query by device type
        return None
    if isinstance(query, Tensor) and torch.is_autocast_enabled(query.device.type):
        return torch.get_autocast_dtype(query.device.type)
    return None


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast an input as autocast does for PyTorch's attention: float64 and non-tensors are returned unchanged."""
    return x.to(dtype) if getattr(x, "dtype", None) in (torch.float32, *HALVES) else x


def _spec(
    score: Score, normalizer: Normalizer, pattern: Pattern, bias: Bias | Tensor | None, dropout: float
) -> AttentionSpec:
    if (
        score is DOT
        and normalizer is SOFTMAX
        and pattern is FULL
        and bias is None
        and dropout == 0
        and type(dropout) in (float, int)
    ):
        return PLAIN
    return AttentionSpec(score, normalizer, pattern, TensorBias(bias) if isinstance(bias, Tensor) else bias, dropout)
