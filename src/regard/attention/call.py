"""One call of the operator: its inputs, checked and completed."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from regard.attention.bias import Bias
from regard.attention.normalizer import Normalizer
from regard.attention.pattern import Pattern, positions
from regard.attention.score import Score
from regard.attention.spec import AttentionSpec
from regard.attention.summary import Summary
from regard.attention.value import Value, axis, holds_tensors, leaves
from regard.errors import ConfigError, ShapeError, UnsupportedError

HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Call:
    """What a backend is given. Layout: query (B, H, L, E), key (B, G, S, E), value (B, G, S, V)."""

    query: Tensor
    key: Tensor
    value: Tensor
    spec: AttentionSpec
    seed: Tensor | None  # int64 (); None without dropout
    query_start: int | Tensor
    key_start: int
    summary: Summary | None

    @property
    def dtype(self) -> torch.dtype:
        """What scores, normalizer and sums are computed in."""
        return torch.float32 if self.query.dtype in HALVES else self.query.dtype

    def positions(self) -> tuple[Tensor, Tensor]:
        """Positions of the queries (B or 1, L) and of the keys (S,)."""
        length, keys = self.query.shape[2], self.key.shape[2]
        return positions(length, keys, self.query_start, self.key_start, self.query.device)

    def with_spec(self, spec: AttentionSpec) -> "Call":
        """The same call with other values."""
        return replace(self, spec=spec)


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
    """Check everything that can be checked without computing, and fill in what was left to default."""
    check_inputs(query, key, value)
    batch, heads, num_queries, query_dim = query.shape
    num_keys = key.shape[2]
    if query_start is None:
        query_start = key_start + num_keys - num_queries
    elif isinstance(query_start, Tensor):
        _check_starts(query_start, query)
    _check_spec(spec)
    spec.score.check(heads, query_dim, key.shape[3])
    score = spec.score.at(key_start, num_keys)
    if score is not spec.score:
        spec = AttentionSpec(**{**spec.arguments(), "score": score})
    spec.pattern.check(None if isinstance(query_start, Tensor) else query_start, num_queries, key_start, num_keys)
    for part in (spec.score, spec.normalizer, spec.pattern, spec.bias):
        if part is not None and holds_tensors(part):
            _check_leaves(part, query, num_keys)
    if summary is not None:
        _check_summary(summary, spec.normalizer, num_queries, num_keys)
    if spec.dropout:
        seed = _seed(seed, query.device)
    return Call(query, key, value, spec, seed if isinstance(seed, Tensor) else None, query_start, key_start, summary)


def check_inputs(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise ShapeError unless the three tensors go together."""
    if not (
        query.dim() == key.dim() == value.dim() == 4
        and query.dtype == key.dtype == value.dtype
        and query.device == key.device == value.device
        and query.shape[0] == key.shape[0]
        and key.shape[:3] == value.shape[:3]
        and query.shape[1] % (key.shape[1] or 1) == 0
        and query.numel()
        and key.numel()
        and value.numel()
        and query.is_floating_point()
    ):
        raise ShapeError(_mismatch(query, key, value))


def _mismatch(query: Tensor, key: Tensor, value: Tensor) -> str:
    """What is wrong with the inputs, in one sentence."""
    named = {"query": query, "key": key, "value": value}
    shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in named.items())
    layout = "query (batch, heads, queries, head_dim), key and value (batch, kv heads, keys, head_dim)"
    if any(x.dim() != 4 for x in named.values()):
        return f"inputs need four dimensions, {layout}; got {shapes}"
    if len({x.dtype for x in named.values()}) > 1:
        return "inputs differ in dtype: " + ", ".join(f"{n} {x.dtype}" for n, x in named.items()) + "; cast them to one"
    if len({x.device for x in named.values()}) > 1:
        return "inputs are on different devices: " + ", ".join(f"{n} {x.device}" for n, x in named.items())
    if not query.is_floating_point():
        return f"inputs are {query.dtype}; expected a floating point dtype"
    if not (query.numel() and key.numel() and value.numel()):
        return f"an input is empty: {shapes}; every dimension must be at least 1"
    if query.shape[0] != key.shape[0] or key.shape[0] != value.shape[0]:
        return f"batch sizes differ: {shapes}"
    if key.shape[1:3] != value.shape[1:3]:
        return f"key and value must agree in heads and length: {shapes}"
    return (
        f"{query.shape[1]} query heads cannot be shared among {key.shape[1]} key heads: the first must be a multiple "
        f"of the second; {shapes}"
    )


def _check_starts(query_start: Tensor, query: Tensor) -> None:
    if query_start.shape != (query.shape[0],) or query_start.is_floating_point() or query_start.dtype == torch.bool:
        raise ShapeError(
            f"query_start is {query_start.dtype} of shape {tuple(query_start.shape)}; expected an int, or integers of "
            f"shape ({query.shape[0]},), one for each sequence"
        )


def _check_spec(spec: AttentionSpec) -> None:
    kinds: tuple[tuple[str, object, type], ...] = (
        ("score", spec.score, Score),
        ("normalizer", spec.normalizer, Normalizer),
        ("pattern", spec.pattern, Pattern),
        ("bias", spec.bias, Bias),
    )
    for name, part, kind in kinds:
        if not isinstance(part, kind) and not (name == "bias" and part is None):
            raise ConfigError(
                f"{name}={part!r} is not a {kind.__name__}; known: "
                f"{', '.join(k.__name__ for k in kind.__subclasses__())}"
            )
    if not 0 <= spec.dropout < 1:
        raise ConfigError(f"dropout={spec.dropout} must be a probability, 0 <= dropout < 1")


def _check_leaves(part: Value, query: Tensor, num_keys: int) -> None:
    """Raise unless every tensor that a value holds fits the call."""
    size = {"B": query.shape[0], "H": query.shape[1], "L": query.shape[2], "S": num_keys}
    for leaf in leaves(part):
        for letter, expected in size.items():
            dim = axis(leaf.tensor, leaf.axes, letter)
            if dim is not None and leaf.tensor.shape[dim] not in (1, expected):
                raise ShapeError(
                    f"{leaf.path} has shape {tuple(leaf.tensor.shape)}, which does not broadcast to this call's "
                    f"{expected} {NAMES[letter]} (dimension {dim}); expected {expected} or 1 there"
                )
        if leaf.tensor.device != query.device:
            raise ShapeError(f"{leaf.path} is on {leaf.tensor.device}, but the inputs are on {query.device}; move it")
        mixed = leaf.tensor.is_floating_point() and leaf.tensor.dtype != query.dtype
        if (
            mixed
            and not isinstance(part, Pattern)
            and (leaf.tensor.dtype, query.dtype in HALVES) != (torch.float32, True)
        ):
            raise ShapeError(
                f"{leaf.path} is {leaf.tensor.dtype}, but the inputs are {query.dtype}; cast one of them "
                "(float32 parameters may stand beside half inputs)"
            )


NAMES = {"B": "sequences", "H": "heads", "L": "queries", "S": "keys"}


def _check_summary(summary: Summary, normalizer: Normalizer, num_queries: int, num_keys: int) -> None:
    for name, asked, why in (
        ("entropy", summary.entropy, normalizer.no_entropy),
        ("log_sum_exp", summary.log_sum_exp, normalizer.no_log_sum_exp),
    ):
        if asked and why is not None:
            raise UnsupportedError(f"Summary({name}=True) means nothing with {normalizer}: {why}")
    if summary.grid is not None and (summary.grid[0] > num_queries or summary.grid[1] > num_keys):
        raise ShapeError(
            f"Summary: grid={summary.grid} has more bins than the map of {num_queries} queries x {num_keys} keys; "
            "give at most that many"
        )


def _seed(seed: int | Tensor | None, device: torch.device) -> Tensor:
    """The seed of dropout as an int64 tensor (); by default drawn from torch's default generator."""
    if seed is None:
        return torch.randint(2**62, (), device=device)
    if not isinstance(seed, Tensor):
        return torch.tensor(seed, dtype=torch.int64, device=device)
    if seed.dtype != torch.int64 or seed.numel() != 1:
        raise ShapeError(
            f"seed is {seed.dtype} of shape {tuple(seed.shape)}; expected an int, or one torch.int64 number"
        )
    return seed.reshape(()).to(device)
