"""Arguments of one call of the operator, checked and with defaults filled in."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from regard.attention.bias import Bias
from regard.attention.check import is_dense, is_integer, is_number, show
from regard.attention.normalizer import Normalizer
from regard.attention.patterns.pattern import Pattern, positions
from regard.attention.score import Score
from regard.attention.spec import PLAIN, AttentionSpec
from regard.attention.summary import Summary
from regard.attention.value import Value, axis
from regard.errors import ConfigError, ShapeError, UnsupportedError, nearest

HALVES = (torch.float16, torch.bfloat16)
FLOATS = (torch.float32, *HALVES, torch.float64)


class Call(NamedTuple):
    """Arguments of a backend. Layout: query (B, H, L, E), key (B, G, S, E), value (B, G, S, V)."""

    query: Tensor
    key: Tensor
    value: Tensor
    spec: AttentionSpec
    seed: Tensor | None  # int64 (); None without dropout and sampling
    query_start: int | Tensor
    key_start: int
    summary: Summary | None

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of scores, weights and sums: float32 for half inputs."""
        return torch.float32 if self.query.dtype in HALVES else self.query.dtype

    @property
    def tensors(self) -> list[Tensor]:
        """Query, key, value, and the tensors held by the five values."""
        return [self.query, self.key, self.value, *(field.tensor for field in self.spec.tensor_fields)]

    def positions(self) -> tuple[Tensor, Tensor]:
        """Query positions (B or 1, L) and key positions (S,)."""
        length, keys = self.query.shape[2], self.key.shape[2]
        return positions(length, keys, self.query_start, self.key_start, self.query.device)

    def with_spec(self, spec: AttentionSpec) -> "Call":
        """Copy of the call with another specification."""
        return self._replace(spec=spec)


def make_call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    spec: AttentionSpec,
    seed: int | Tensor | None,
    query_start: int | Tensor | None,
    key_start: int,
    summary: Summary | None,
) -> Call:
    """Check the arguments of a call, without computing anything, and fill in defaults."""
    query_shape, key_shape = check_inputs(query, key, value)
    batch, heads, num_queries, query_dim = query_shape
    num_keys = key_shape[2]
    if not is_integer(key_start):
        raise ConfigError(f"key_start={show(key_start)} must be an int: the position of the first key")
    if query_start is None:
        query_start = key_start + num_keys - num_queries
    elif isinstance(query_start, Tensor):
        _check_starts(query_start, query)
    elif not is_integer(query_start):
        raise ConfigError(
            f"query_start={query_start!r} must be an int, or an integer tensor ({batch},), one for each sequence"
        )
    if spec is not PLAIN:
        _check_spec(spec)
    spec.score.check(heads, query_dim, key_shape[3])
    if spec is not PLAIN:
        score = spec.score.at(key_start, num_keys)
        if score is not spec.score:
            spec = AttentionSpec(**{**spec.arguments(), "score": score})
        if num_queries and num_keys:  # otherwise there are no positions to check
            first = None if isinstance(query_start, Tensor) else query_start
            spec.pattern.check(first, num_queries, key_start, num_keys)
        for part in (spec.score, spec.normalizer, spec.pattern, spec.bias):
            if part is not None and part.tensor_fields:
                _check_held(part, query, num_keys)
    if summary is not None:
        if not isinstance(summary, Summary):
            raise ConfigError(f"summary={show(summary)} is not a Summary; expected one such as Summary(entropy=True)")
        _check_summary(summary, spec.normalizer, num_queries, num_keys)
    needs_seed = bool(spec.dropout) or (spec is not PLAIN and spec.normalizer.draws)
    if needs_seed:
        seed = _seed(seed, query.device)
    return Call(query, key, value, spec, seed if isinstance(seed, Tensor) else None, query_start, key_start, summary)


def check_inputs(query: Tensor, key: Tensor, value: Tensor) -> tuple[torch.Size, torch.Size]:
    """Shapes of query and key; raises ShapeError if the three tensors are incompatible."""
    if not (is_dense(query) and is_dense(key) and is_dense(value)):
        raise ShapeError(f"inputs must be dense tensors; got {', '.join(map(_kind, (query, key, value)))}")
    q, k, v = query.shape, key.shape, value.shape
    dtype, device = query.dtype, query.device
    if not (
        len(q) == len(k) == len(v) == 4
        and dtype is key.dtype is value.dtype
        and dtype in FLOATS
        and device == key.device
        and device == value.device
        and q[0] == k[0]
        and k[:3] == v[:3]
        and (q[1] % k[1] if k[1] else q[1]) == 0
    ):
        raise ShapeError(_mismatch(query, key, value))
    return q, k


def _mismatch(query: Tensor, key: Tensor, value: Tensor) -> str:
    """Error message for incompatible inputs."""
    named = {"query": query, "key": key, "value": value}
    shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in named.items())
    layout = "query (batch, heads, queries, head_dim), key and value (batch, kv heads, keys, head_dim)"
    if any(x.dim() != 4 for x in named.values()):
        return f"inputs need four dimensions, {layout}; got {shapes}"
    if len({x.dtype for x in named.values()}) > 1:
        return "inputs differ in dtype: " + ", ".join(f"{n} {x.dtype}" for n, x in named.items()) + "; cast them to one"
    if len({x.device for x in named.values()}) > 1:
        return (
            "inputs are on different devices: " + ", ".join(f"{n} {x.device}" for n, x in named.items()) + "; move one"
        )
    if query.dtype not in FLOATS:
        return f"inputs are {query.dtype}; cast them to one of {', '.join(map(str, FLOATS))}"
    if query.shape[0] != key.shape[0] or key.shape[0] != value.shape[0]:
        return f"batch sizes differ: {shapes}; expand them to one"
    if key.shape[1:3] != value.shape[1:3]:
        return f"key and value differ in heads or length: {shapes}"
    return (
        f"{query.shape[1]} query heads and {key.shape[1]} key heads: the number of query heads must be a multiple of "
        f"the number of key heads; {shapes}"
    )


def _kind(x: object) -> str:
    layout = f" of layout {x.layout}" if isinstance(x, Tensor) and x.layout is not torch.strided else ""
    return type(x).__name__ + layout


def _check_starts(query_start: Tensor, query: Tensor) -> None:
    if query_start.shape != (query.shape[0],) or query_start.is_floating_point() or query_start.dtype == torch.bool:
        raise ShapeError(
            f"query_start is {query_start.dtype} of shape {tuple(query_start.shape)}; expected an int, or integers of "
            f"shape ({query.shape[0]},), one for each sequence"
        )


def _check_spec(spec: Any) -> None:
    if not (
        isinstance(spec.score, Score)
        and isinstance(spec.normalizer, Normalizer)
        and isinstance(spec.pattern, Pattern)
        and (spec.bias is None or isinstance(spec.bias, Bias))
    ):
        raise ConfigError(_wrong_kind(spec))
    if not (is_number(spec.dropout) and 0 <= spec.dropout < 1):
        raise ConfigError(f"dropout={show(spec.dropout)} must be a probability, 0 <= dropout < 1")


def _wrong_kind(spec: Any) -> str:
    """Error message for a value of the wrong type."""
    kinds: dict[str, type[Value]] = {"score": Score, "normalizer": Normalizer, "pattern": Pattern, "bias": Bias}
    name, kind = next((n, k) for n, k in kinds.items() if not isinstance(getattr(spec, n), k))
    part: object = getattr(spec, name)
    known: dict[str, type] = {k.__name__: k for k in kind.__subclasses__()}
    if isinstance(part, Tensor) and name == "pattern":
        remedy = "wrap a boolean tensor in Mask(tensor), True = may attend"
    elif isinstance(part, type) and part in known.values():
        remedy = f"did you mean {part.__name__}(...)?"
    else:
        remedy = nearest(part if isinstance(part, str) else "", known)
    return f"{name}={show(part)} is not a {kind.__name__}; {remedy}"


def _check_held(part: Value, query: Tensor, num_keys: int) -> None:
    """Raise ShapeError unless every tensor held by a value matches the sizes, device and dtype of the call."""
    size = {"B": query.shape[0], "H": query.shape[1], "L": query.shape[2], "S": num_keys}
    for field in part.tensor_fields:
        if field.tensor.dim() > len(field.axes):
            raise ShapeError(
                f"{field.path} has shape {tuple(field.tensor.shape)}; expected no more dimensions than "
                f"({', '.join(NAMES.get(letter, '...') for letter in field.axes)})"
            )
        for letter, expected in size.items():
            dim = axis(field.tensor, field.axes, letter)
            if dim is not None and field.tensor.shape[dim] not in (1, expected):
                raise ShapeError(
                    f"{field.path} has shape {tuple(field.tensor.shape)}, which does not broadcast to this call's "
                    f"{expected} {NAMES[letter]}: expected size {expected} or 1 in dimension {dim}"
                )
        if field.tensor.device != query.device:
            raise ShapeError(f"{field.path} is on {field.tensor.device}, but the inputs are on {query.device}; move it")
        if isinstance(part, Pattern) or field.tensor.dtype == query.dtype:
            continue
        if field.tensor.dtype != torch.float32 or query.dtype not in HALVES:
            raise ShapeError(
                f"{field.path} is {field.tensor.dtype}, but the inputs are {query.dtype}; cast one of them "
                "(with half inputs, float32 parameters are allowed)"
            )


NAMES = {"B": "sequences", "H": "heads", "L": "queries", "S": "keys"}


def _check_summary(summary: Summary, normalizer: Normalizer, num_queries: int, num_keys: int) -> None:
    for name, requested, reason in (
        ("entropy", summary.entropy, normalizer.no_entropy),
        ("log_sum_exp", summary.log_sum_exp, normalizer.no_log_sum_exp),
        ("log_prob", summary.log_prob, normalizer.no_log_prob),
    ):
        if requested and reason is not None:
            raise UnsupportedError(f"Summary({name}=True) is undefined for {normalizer}: {reason}")
    if summary.grid is not None and (summary.grid[0] > num_queries or summary.grid[1] > num_keys):
        raise ShapeError(
            f"Summary: grid={summary.grid} has more bins than the score matrix of {num_queries} queries x {num_keys} "
            "keys; reduce the grid"
        )


def _seed(seed: int | Tensor | None, device: torch.device) -> Tensor:
    """Seed of dropout and sampling as an int64 tensor (); by default drawn from torch's default generator."""
    if seed is None:
        return torch.randint(2**62, (), device=device)
    if not isinstance(seed, Tensor):
        if not is_integer(seed) or not -(2**63) <= seed < 2**63:
            raise ConfigError(f"seed={seed!r} must be a 64-bit int, or a torch.int64 tensor of one element")
        return torch.tensor(seed, dtype=torch.int64, device=device)
    if seed.dtype != torch.int64 or seed.numel() != 1:
        raise ShapeError(
            f"seed is {seed.dtype} of shape {tuple(seed.shape)}; expected an int, or a torch.int64 tensor of one "
            "element"
        )
    return seed.reshape(()).to(device, copy=True)  # a copy, because backward reads it again
