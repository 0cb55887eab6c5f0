"""The table of docs/operator.md of what works where, from the plan's refusals and, for derivatives, from trying.

`python -m tests.contract.table` writes it into docs/operator.md between its two markers.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

import regard as rg
from regard.attention.plan import BACKENDS
from regard.errors import UnsupportedError
from tests.contract.cases import BIASES, DTYPES, EDGES, NORMALIZERS, PATTERNS, SCORES, Edge, Source

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operator.md"
BEGIN, END = "<!-- table: what works where -->", "<!-- end table -->"

YES, NO = "yes", "no"
SUMMARIES = {
    "log-sum-exp": rg.Summary(log_sum_exp=True),
    "entropy": rg.Summary(entropy=True),
    "expected key and variance": rg.Summary(expected_key=True),
    "mass of each key": rg.Summary(key_mass=True),
    "top-k keys": rg.Summary(top_k=2),
    "grid": rg.Summary(grid=(2, 2)),
    "weights": rg.Summary(weights=True),
}

# What stands in a row of the table: its name, and the entries of an axis that it speaks of.
SCORE_ROWS = {
    "`Dot`": ["dot", "dot_scaled"],
    "`Dot` with a softcap": ["dot_capped"],
    "`Dot` with a learned scale": ["dot_per_head", "dot_learned"],
    "`Cosine`": ["cosine", "cosine_per_head"],
    "`Bilinear`": ["bilinear", "bilinear_per_head"],
    "`Additive`": ["additive_tanh", "additive_relu", "additive_sigmoid"],
    "`LocationAware` of one row of weights": ["location_aware", "location_aware_per_head"],
    "`LocationAware` of a row for each query": ["location_aware_by_query"],
    "`Location`": ["location", "location_per_head"],
}
NORMALIZER_ROWS = {
    "`Softmax`": ["softmax"],
    "`Softmax` with a sink": ["softmax_sink"],
    "`Softmax` with a prior": ["softmax_prior", "softmax_sink_prior"],
    "`Sparsemax`": ["sparsemax"],
    "`Entmax`": ["entmax", "entmax_sparse"],
    "`Entmax` with a learned alpha": ["entmax_per_head"],
    "`Sigmoid`": ["sigmoid", "sigmoid_per_head"],
    "`NormalizedSigmoid`": ["normalized_sigmoid", "normalized_sigmoid_per_head"],
    "`Hard`": ["hard", "hard_straight_through", "hard_reinforce"],
    "`Hard` with a relaxed sample": ["hard_gumbel"],
}
PATTERN_ROWS = {
    "`Full`": ["full"],
    "`Causal`": ["causal"],
    "every other pattern, and `&` `|` `~` of them": [p for p in PATTERNS if p not in ("full", "causal")],
}
BIAS_ROWS = {
    "`TensorBias`": [b for b in BIASES if b.startswith("tensor")],
    "`ALiBi`": ["alibi"],
    "`RelativeBias`": ["relative", "relative_before"],
}


def table() -> str:
    """The table in Markdown."""
    lines = ["| | " + " | ".join(f"`{name}`" for name in BACKENDS) + " |", "| --- " * (1 + len(BACKENDS)) + "|"]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows()]
    return "\n".join(lines)


def rows() -> Iterator[tuple[str, list[str]]]:
    """Each row's name and its cells."""
    edge = EDGES["plain"]
    axes: list[tuple[str, str, dict[str, Any], dict[str, list[str]]]] = [
        ("**scores**", "score", SCORES, SCORE_ROWS),
        ("**normalizers**", "normalizer", NORMALIZERS, NORMALIZER_ROWS),
        ("**patterns**", "pattern", PATTERNS, PATTERN_ROWS),
        ("**biases**", "bias", BIASES, BIAS_ROWS),
    ]
    empty = [""] * len(BACKENDS)
    for heading, axis, entries, names in axes:
        yield heading, empty
        for name, members in names.items():
            calls = [call(edge, **{axis: entries[m](edge, Source(1))}) for m in members]
            yield name, [planned(backend, calls) for backend in BACKENDS]
    yield "**summaries**", empty
    for name, summary in SUMMARIES.items():
        yield name, [planned(backend, [call(edge, summary=summary)]) for backend in BACKENDS]
    yield "**also**", empty
    yield "dropout", [planned(backend, [call(edge, dropout=0.1, seed=0)]) for backend in BACKENDS]
    yield "grouped heads", [planned(backend, [call(EDGES["grouped"])]) for backend in BACKENDS]
    starts = torch.tensor([0, 5])
    yield (
        "a `query_start` for each sequence",
        [planned(backend, [call(edge, pattern=rg.Causal(), query_start=starts)]) for backend in BACKENDS],
    )
    yield "**derivatives**", empty
    for name, attempt in DERIVATIVES.items():
        yield name, [tried(backend, attempt) for backend in BACKENDS]
    yield "**dtypes**", empty
    for name, dtype in DTYPES.items():
        yield f"`{name}`", [planned(backend, [call(edge, dtype=dtype)]) for backend in BACKENDS]


def call(edge: Edge, dtype: torch.dtype = torch.float64, **values: Any) -> dict[str, Any]:
    """The arguments of a call."""
    source = Source(0)
    width = values["score"].weight.shape[-1] if isinstance(values.get("score"), rg.Bilinear) else edge.E
    shapes = {
        "query": (edge.B, edge.H, edge.L, edge.E),
        "key": (edge.B, edge.G, edge.S, width),
        "value": (edge.B, edge.G, edge.S, edge.V),
    }
    return {name: source(name, *shape).to(dtype) for name, shape in shapes.items()} | values


def planned(backend: str, calls: list[dict[str, Any]]) -> str:
    """Whether the plan lists no refusal of the backend; calls that share a row share the answer."""
    answers = {backend in rg.plan(**arguments).refusals for arguments in calls}
    if len(answers) > 1:
        raise ValueError(f"{backend} takes only some of the calls that share a row of the table: split the row")
    return NO if answers.pop() else YES


# Derivatives are tried, and compared with those of the reference.


def tried(backend: str, attempt: Callable[[Callable[..., Tensor], dict[str, Any]], list[Tensor]]) -> str:
    """Whether the backend gives the derivatives that the reference gives."""
    arguments = call(EDGES["plain"], pattern=rg.Causal())
    expected = attempt(partial(rg.attend, backend="reference"), dict(arguments))
    try:
        found = attempt(partial(rg.attend, backend=backend), dict(arguments))
    except (UnsupportedError, RuntimeError):  # what torch raises for a kernel without that derivative
        return NO
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    return YES


def inputs(arguments: dict[str, Any]) -> list[Tensor]:
    """The three tensors, made ready to be differentiated by."""
    for name in ("query", "key", "value"):
        arguments[name] = arguments[name].clone().requires_grad_()
    return [arguments[name] for name in ("query", "key", "value")]


def first(attend: Callable[..., Tensor], arguments: dict[str, Any]) -> list[Tensor]:
    tensors = inputs(arguments)
    return list(torch.autograd.grad(attend(**arguments).square().sum(), tensors))


def second(attend: Callable[..., Tensor], arguments: dict[str, Any]) -> list[Tensor]:
    tensors = inputs(arguments)
    grads = torch.autograd.grad(attend(**arguments).square().sum(), tensors, create_graph=True)
    return list(torch.autograd.grad(sum(g.square().sum() for g in grads), tensors))


def forward_mode(attend: Callable[..., Tensor], arguments: dict[str, Any]) -> list[Tensor]:
    with forward_ad.dual_level():
        for name in ("query", "key", "value"):
            arguments[name] = forward_ad.make_dual(arguments[name], torch.ones_like(arguments[name]).cumsum(-1))
        tangent = forward_ad.unpack_dual(attend(**arguments)).tangent
        if tangent is None:
            raise RuntimeError("the tangent was lost")
        return [tangent]


DERIVATIVES = {"gradients": first, "second derivatives": second, "forward mode": forward_mode}


def between(text: str) -> str | None:
    """What stands between the markers of a text; None where a marker is missing."""
    if BEGIN not in text or END not in text:
        return None
    return text.split(BEGIN)[1].split(END)[0].strip()


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    if between(text) is None:
        sys.exit(f"{PAGE} lacks {BEGIN} or {END}")
    before, rest = text.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
