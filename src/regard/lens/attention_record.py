"""What one attention of a model did: its calls joined along the queries, as maps and summaries.

Layout: B sequences, H heads, G key heads, L queries of all calls, S keys, r and c bins, k largest weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import pad

from regard.attention.summary import SummaryResult
from regard.errors import ConfigError, ShapeError
from regard.lens.capture.call import AttentionCall, detached
from regard.lens.summaries import summarize, weights_of
from regard.lens.view import LayerView

LIMIT_95 = 1.96  # standard errors on each side of a mean, for 95% of samples


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is recorded of each attention.

    Args:
        grid: bins of queries and of keys, at most.
        top: largest weights of each query.
        weights: whether the weights themselves are kept.
        values: whether the values are kept.
        gradients: whether the gradients of outputs are kept, which a backward pass brings.
        differentiable: whether summaries carry gradients.
        budget: bytes of the weights of one call.
    """

    grid: int
    top: int
    weights: bool
    values: bool
    gradients: bool
    differentiable: bool
    budget: int


class BinnedMap:
    """Mean weights by bins of queries and keys, of calls that come one after the other.

    Bins have a power of two of places. When there are too many, neighbors join, so that every sum stays exact.

    Args:
        limit: bins on each side, at most.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.height, self.width = 1, 1  # places of a bin
        self.queries, self.keys = 0, 0
        self.sums: Tensor | None = None  # (B, H, r, c)

    def edges(self, keys: int) -> list[int]:
        """The edges of the bins of a call with so many keys."""
        while -(-max(keys, self.keys) // self.width) > self.limit:
            self._halve_columns()
        return [*range(0, keys, self.width), keys]

    def add(self, bins: Tensor, keys: int) -> None:
        """Take in rows of a call, by the bins of `edges(keys)`: (B, H, rows, c)."""
        rows = bins.shape[2]
        while -(-(self.queries + rows) // self.height) > self.limit:
            self._halve_rows()
        self.keys = max(self.keys, keys)
        index = torch.arange(self.queries, self.queries + rows, device=bins.device) // self.height
        self.queries += rows
        size = (-(-self.queries // self.height), -(-self.keys // self.width))
        before = bins.new_zeros(*bins.shape[:2], 0, 0) if self.sums is None else self.sums
        grown = pad(before, (0, size[1] - before.shape[3], 0, size[0] - before.shape[2]))
        self.sums = grown.index_add(2, index, pad(bins, (0, size[1] - bins.shape[3])))

    @property
    def row_edges(self) -> list[int]:
        """First query of each bin, and the number of queries."""
        return [*range(0, self.queries, self.height), self.queries]

    @property
    def column_edges(self) -> list[int]:
        """First key of each bin, and the number of keys."""
        return [*range(0, self.keys, self.width), self.keys]

    def mean(self) -> Tensor:
        """The mean over the queries of each bin: (B, H, r, c)."""
        if self.sums is None:
            raise ShapeError("BinnedMap: no row was added")
        heights = torch.tensor(self.row_edges, device=self.sums.device).diff()
        return self.sums / heights[:, None]

    def _halve_rows(self) -> None:
        self.height *= 2
        if self.sums is not None:
            self.sums = _pairs(self.sums, 2)

    def _halve_columns(self) -> None:
        self.width *= 2
        if self.sums is not None:
            self.sums = _pairs(self.sums, 3)


@final
class AttentionRecord:
    """What an attention did in all its calls.

    Each call's queries follow those of the call before, so that a model that writes a token at a time looks like one
    that writes all at once. Keys that came later have weight 0 before.

    Args:
        path: of the attention in the model.
        settings: what is recorded.
    """

    def __init__(self, path: str, settings: Settings) -> None:
        self.path, self.settings = path, settings
        self.kinds: list[str] = []
        self.calls = 0
        self.map = BinnedMap(settings.grid)
        self.error: float | None = None
        self.mismatch: str | None = None
        self.query_rows: Tensor | None = None
        self._shape: tuple[int, int] | None = None
        self._rows: list[SummaryResult] = []
        self._mass: Tensor | None = None
        self._distance: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._sampled: list[Tensor] = []
        self._gradients: dict[int, Tensor] = {}
        self._outputs: list[Tensor] = []
        self.value: Tensor | None = None

    def add(self, call: AttentionCall) -> None:
        """Take in a call."""
        self.calls += 1
        if call.kind not in self.kinds:
            self.kinds.append(call.kind)
        batch, heads, queries, keys = call.shape
        if self._shape not in (None, (batch, heads)):
            self.mismatch = f"calls of {self._shape} and {(batch, heads)} sequences and heads"
            return
        self._shape = (batch, heads)
        if (
            self.settings.gradients
            and call.output is not None
            and call.result is not None
            and call.result.requires_grad
        ):
            call.result.register_hook(self._store_gradient(self.calls - 1, call.output.shape))
            self._outputs.append(call.output.detach())
        call = call if self.settings.differentiable else detached(call)
        with torch.set_grad_enabled(self.settings.differentiable and torch.is_grad_enabled()):
            self._summarize(call)
        if self.settings.values and call.value is not None:
            self.value = call.value
        if self.settings.weights:
            self._store_weights(call, batch * heads * queries * keys)

    def _summarize(self, call: AttentionCall) -> None:
        keys, edges = call.shape[3], self.map.edges(call.shape[3])
        start = call.query_start
        start = start[:, None, None] if isinstance(start, Tensor) else start
        for part, rows in summarize(call, self.settings.top, edges):
            self.map.add(rows.bins, keys)
            result = rows.summary_result
            positions = torch.arange(part.start, part.stop, device=rows.bins.device) + start
            self._distance.append(positions - _present(result.expected_key))
            mass = _present(result.key_mass)
            if self._mass is not None:
                size = max(mass.shape[-1], self._mass.shape[-1])
                mass = pad(mass, (0, size - mass.shape[-1])) + pad(self._mass, (0, size - self._mass.shape[-1]))
            self._mass = mass
            if rows.output is not None and call.output is not None and not call.dropped:
                self._check(rows.output, call.output[:, :, part])
            self._rows.append(replace(result, key_mass=None, key_variance=None))

    def _check(self, output: Tensor, of_model: Tensor) -> None:
        """The largest difference from the model's output, relative to its largest number."""
        of_model = of_model.detach()
        largest = of_model.abs().max().item()
        error = (output.detach() - of_model).abs().max().item() / (largest or 1.0)
        self.error = error if self.error is None else max(self.error, error)

    def _store_gradient(self, number: int, shape: torch.Size) -> Callable[[Tensor], None]:
        def store(gradient: Tensor) -> None:
            self._gradients[number] = gradient.detach().reshape(shape)

        return store

    def _store_weights(self, call: AttentionCall, numbers: int) -> None:
        """All weights if they fit the budget, else those of one query of each of equal strata."""
        queries = call.shape[2]
        rows = torch.arange(queries)
        if 4 * numbers > self.settings.budget:
            count = max(1, self.settings.budget * queries // (4 * numbers))
            bounds = torch.linspace(0, queries, count + 1).long()
            generator = torch.Generator().manual_seed(0)
            rows = bounds[:-1] + (torch.rand(count, generator=generator) * bounds.diff()).long()
        self._sampled.append(rows + (self.map.queries - queries))
        self._weights.append(weights_of(call, rows))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """B, H, L and S of all calls together."""
        batch, heads = self._shape or (0, 0)
        return batch, heads, self.map.queries, self.map.keys

    @property
    def entropy(self) -> Tensor:
        """-sum w log w of each row in nats: (B, H, L)."""
        return torch.cat([_present(rows.entropy) for rows in self._rows], 2)

    @property
    def expected_key(self) -> Tensor:
        """The mean position of each query's keys: (B, H, L)."""
        return torch.cat([_present(rows.expected_key) for rows in self._rows], 2)

    @property
    def distance(self) -> Tensor:
        """The query's position less the mean position of its keys: (B, H, L)."""
        return torch.cat(self._distance, 2)

    @property
    def key_mass(self) -> Tensor:
        """The weight that each key receives from all queries: (B, H, S)."""
        return _present(self._mass)

    @property
    def top_keys(self) -> Tensor:
        """Positions of each query's largest weights, -1 where there are fewer: (B, H, L, k)."""
        return self._top("top_keys", -1)

    @property
    def top_weights(self) -> Tensor:
        """The largest weights of each query: (B, H, L, k)."""
        return self._top("top_weights", 0)

    def _top(self, name: str, missing: int) -> Tensor:
        parts = [_present(getattr(rows, name)) for rows in self._rows]
        size = max(part.shape[-1] for part in parts)
        return torch.cat([pad(part, (0, size - part.shape[-1]), value=missing) for part in parts], 2)

    @property
    def grid(self) -> Tensor:
        """The mean weight that a query of a row bin gives all keys of a column bin together: (B, H, r, c)."""
        return self.map.mean()

    @property
    def weights(self) -> Tensor:
        """The weights: (B, H, L, S), or those of the queries `rows`, where all did not fit the budget.

        Raises:
            ConfigError: weights that were not asked for.
        """
        if not self._weights:
            raise ConfigError(
                f"record: the weights of {self.path or 'the attention'} were not kept; ask for them: weights=True"
            )
        keys = max(part.shape[-1] for part in self._weights)
        return torch.cat([pad(part, (0, keys - part.shape[-1])) for part in self._weights], 2)

    @property
    def rows(self) -> Tensor:
        """The queries that `weights` are of: all, or one at random of each of equal strata."""
        return torch.cat(self._sampled)

    @property
    def output(self) -> Tensor:
        """The model's outputs by head, with `gradients=True`: (B, H, L, V)."""
        return torch.cat(self._outputs, 2)

    @property
    def output_grad(self) -> Tensor:
        """Gradient of what was backpropagated with respect to the outputs: (B, H, L, V).

        Raises:
            ConfigError: gradients that were not asked for, or no backward pass.
        """
        if not self._gradients:
            raise ConfigError(
                f"record: no gradient of {self.path or 'the attention'}; ask for it with gradients=True, and call "
                "backward() on what the model returned"
            )
        return torch.cat([self._gradients[number] for number in sorted(self._gradients)], 2)

    def estimate(self, of_rows: Tensor) -> tuple[float, float]:
        """The mean over all queries of a number that sampled queries have, and half of its 95% interval.

        Args:
            of_rows: (number of `rows`,), a number of each sampled query.

        Returns:
            The mean, and half the interval's width: 0 where all queries were kept.

        Source: Cochran 1977, Sampling Techniques, section 5A.12 (collapsed strata: neighbors make a pair).
        """
        count = len(of_rows)
        if count == self.map.queries:
            return float(of_rows.mean()), 0.0
        pairs = of_rows[: count // 2 * 2].reshape(-1, 2)
        variance = float((pairs[:, 0] - pairs[:, 1]).square().sum()) / max(1, count) ** 2
        return float(of_rows.mean()), LIMIT_95 * variance**0.5

    def head(self, head: int, batch: int = 0) -> "HeadRecord":
        """One head of one sequence.

        Args:
            head: counted from 0.
            batch: the sequence, counted from 0.

        Raises:
            ConfigError: a head or sequence that there is not.
        """
        batches, heads = self._shape or (0, 0)
        for name, number, count in (("head", head, heads), ("batch", batch, batches)):
            if not 0 <= number < count:
                raise ConfigError(f"record: {name}={number} of {self.path!r}; expected 0 to {count - 1}")
        return HeadRecord(self, batch, head)

    def layer_view(self, rows: str, columns: str, batch: int = 0) -> LayerView:
        """The maps of a sequence as pages and pictures take them.

        Args:
            rows, columns: names of the axes.
            batch: the sequence, counted from 0.
        """

        def of(x: Tensor) -> Tensor:
            return x[batch].detach().float().cpu()

        return LayerView(
            path=self.path, rows=rows, columns=columns, grid=of(self.grid), row_edges=self.map.row_edges,
            column_edges=self.map.column_edges, entropy=of(self.entropy), distance=of(self.distance),
            key_mass=of(self.key_mass), top_keys=self.top_keys[batch].cpu(), top_weights=of(self.top_weights),
            error=self.error,
        )  # fmt: skip

    def __repr__(self) -> str:
        batch, heads = self._shape or (0, 0)
        sizes = f"{batch} x {heads} heads, {self.map.queries:,} x {self.map.keys:,}"
        return f"AttentionRecord({self.path!r}, {sizes}, {self.calls} calls)"


@final
@dataclass(frozen=True, eq=False)
class HeadRecord:
    """One head of one sequence; see the fields of `AttentionRecord`."""

    record: AttentionRecord
    batch: int
    index: int

    def __getattr__(self, name: str) -> Tensor:
        """A field of the record for this head, as grid (r, c), entropy (L,), top_keys (L, k), weights (L, S)."""
        fields: Sequence[str] = (
            "grid", "entropy", "expected_key", "distance", "key_mass", "top_keys", "top_weights", "weights",
            "output_grad",
        )  # fmt: skip
        if name not in fields:
            raise AttributeError(f"HeadRecord has no field {name!r}; it has {', '.join(fields)}")
        x: Tensor = getattr(self.record, name)[self.batch, self.index]
        return x


def _present(x: Tensor | None) -> Tensor:
    """A summary that was asked for."""
    if x is None:
        raise ConfigError("record: a summary is missing")
    return x


def _pairs(x: Tensor, dim: int) -> Tensor:
    """Sums of neighbors along a dimension; an odd last one stays alone."""
    if x.shape[dim] % 2:
        x = pad(x, (0, 0) * (x.dim() - 1 - dim) + (0, 1))
    return x.unflatten(dim, (-1, 2)).sum(dim + 1)
