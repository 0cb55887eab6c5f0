"""Summaries of the attention weights, exact and, except for `weights`, computed without the L x S matrix.

A summary describes the weights before dropout and never changes the output. Sums are accumulated tile by tile and are
differentiable; the top keys and the variance are merged from tile to tile and carry no gradient.
"""

from dataclasses import dataclass, fields
from typing import final

import torch
from torch import Tensor

from regard.attention.check import check_grid, check_integer, show
from regard.attention.value import Value, value
from regard.errors import ConfigError


@final
@value
class Summary(Value):
    """Selection of the summaries to compute.

    Args:
        log_sum_exp: log of the sum of exp(score) of each row, including the sink.
        log_prob: log-probability of each row's key under softmax(score / T), for `Hard`.
        entropy: -sum w log w of each row, in nats, over the keys.
        expected_key: mean and variance of the key position under each row's weights, normalized to sum to 1.
        key_mass: total weight of each key, summed over the queries.
        top_k: number of the largest weights of each row to return, with their key positions.
        grid: (query bins, key bins): the mean weight in each cell of a grid over the weight matrix.
        weights: the weights themselves; memory L x S.

    Raises:
        ConfigError: a negative top_k, a bin count below 1, a field of the wrong type, or nothing selected.
    """

    log_sum_exp: bool = False
    log_prob: bool = False
    entropy: bool = False
    expected_key: bool = False
    key_mass: bool = False
    top_k: int = 0
    grid: tuple[int, int] | None = None
    weights: bool = False

    def __post_init__(self) -> None:
        check_integer("Summary", "top_k", self.top_k, 0)
        for f in fields(self):
            if isinstance(f.default, bool) and not isinstance(getattr(self, f.name), bool):
                raise ConfigError(f"Summary: {f.name}={show(getattr(self, f.name))} must be True or False")
        if self.grid is not None:
            check_grid(self.grid)
        if not any(getattr(self, f.name) for f in fields(self)):
            raise ConfigError("Summary: nothing is selected; name at least one summary, as in Summary(entropy=True)")

    @property
    def sums(self) -> tuple[str, ...]:
        """Names of the summaries that are sums over tiles, in the order of `contributions`."""
        parts = {
            "entropy": self.entropy,
            "mass": self.expected_key,
            "moment": self.expected_key,
            "key_mass": self.key_mass,
            "grid": self.grid is not None,
            "weights": self.weights,
        }
        return tuple(name for name, selected in parts.items() if selected)

    @property
    def merged(self) -> bool:
        """Whether a selected summary has to be merged from tile to tile."""
        return self.expected_key or self.top_k > 0


@dataclass(frozen=True, kw_only=True, repr=False)
class SummaryResult:
    """Requested summaries of the weights; the other fields are None.

    A row without visible keys has entropy 0, expected key 0 with variance 0, log-sum-exp -inf (or the sink's).

    Args:
        log_sum_exp: (B, H, L).
        log_prob: (B, H, L), nats; 0 in a row without visible keys.
        entropy: (B, H, L), nats.
        expected_key: (B, H, L), a position.
        key_variance: (B, H, L), positions squared; without gradient.
        key_mass: (B, H, S).
        top_keys: (B, H, L, k), positions by descending weight, -1 where fewer than k keys have a weight above 0.
        top_weights: (B, H, L, k), 0 where top_keys is -1; without gradient.
        grid: (B, H, query bins, key bins).
        weights: (B, H, L, S).
    """

    log_sum_exp: Tensor | None = None
    log_prob: Tensor | None = None
    entropy: Tensor | None = None
    expected_key: Tensor | None = None
    key_variance: Tensor | None = None
    key_mass: Tensor | None = None
    top_keys: Tensor | None = None
    top_weights: Tensor | None = None
    grid: Tensor | None = None
    weights: Tensor | None = None

    def __repr__(self) -> str:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return f"SummaryResult({', '.join(f'{n}={tuple(x.shape)}' for n, x in tensors.items() if x is not None)})"


@dataclass(frozen=True)
class Frame:
    """Location of a tile in the weight matrix: its rows and columns, and the size of the matrix."""

    rows: slice
    columns: slice
    num_queries: int
    num_keys: int
    key_start: int


def contributions(summary: Summary, weights_BHLS: Tensor, frame: Frame) -> tuple[Tensor, ...]:
    """Contribution of a tile to each of `summary.sums`."""
    w = weights_BHLS
    parts = []
    for name in summary.sums:
        if name == "entropy":
            parts.append(-(w * torch.log(torch.where(w > 0, w, 1.0))).sum(-1))
        elif name == "mass":
            parts.append(w.sum(-1))
        elif name == "moment":
            parts.append(w @ _key_positions(frame, w).to(w.dtype))
        elif name == "key_mass":
            parts.append(w.sum(-2))
        elif name == "grid":
            parts.append(_binned(summary, w, frame))
        else:
            parts.append(w)
    return tuple(parts)


def sum_axes(summary: Summary) -> tuple[str, ...]:
    """Axes of each of `summary.sums`, in the notation of `value.tensor_field`."""
    axes = {"entropy": "BHL", "mass": "BHL", "moment": "BHL", "key_mass": "BHS", "grid": "BHij", "weights": "BHLS"}
    return tuple(axes[name] for name in summary.sums)


def sum_shapes(
    summary: Summary, batch: int, heads: int, num_queries: int, num_keys: int
) -> tuple[tuple[int, ...], ...]:
    """Shape of each of `summary.sums`."""
    bins = dict(zip("ij", summary.grid or (0, 0), strict=True))
    size = {"B": batch, "H": heads, "L": num_queries, "S": num_keys, **bins}
    return tuple(tuple(size[letter] for letter in axes) for axes in sum_axes(summary))


class RunningStats:
    """Running merge of the largest weights of each row and the variance of its key position.

    Tiles of the same rows must be added one after the other, each once. No gradient is recorded.
    """

    def __init__(self, summary: Summary, batch: int, heads: int, num_queries: int, like: Tensor) -> None:
        rows = (batch, heads, num_queries)
        self.top_k = summary.top_k
        self.top_weights = like.new_zeros(*rows, self.top_k)
        self.top_keys = like.new_full((*rows, self.top_k), -1, dtype=torch.int64)
        # mass, mean and sum of squared deviations of the key position so far (Chan et al. 1983, "Algorithms for
        # computing the sample variance", equations 1.5): no difference of large squares
        self.mass, self.mean, self.spread = (like.new_zeros(rows) for _ in range(3))

    @torch.no_grad()
    def add(self, weights_BHLS: Tensor, frame: Frame) -> None:
        """Add a tile of weights."""
        rows, keys = frame.rows, _key_positions(frame, weights_BHLS)
        if self.top_k:
            tile_top, columns = weights_BHLS.topk(min(self.top_k, weights_BHLS.shape[-1]), dim=-1)
            weights = torch.cat([self.top_weights[:, :, rows], tile_top], -1)
            candidates = torch.cat([self.top_keys[:, :, rows], keys[columns]], -1)
            best, index = weights.topk(self.top_k, dim=-1)
            self.top_weights[:, :, rows] = best
            self.top_keys[:, :, rows] = torch.where(best > 0, candidates.gather(-1, index), -1)
        offset = (keys - keys[0]).to(weights_BHLS.dtype)
        mass = weights_BHLS.sum(-1)
        mean = _ratio(weights_BHLS @ offset, mass)
        spread = (weights_BHLS * (offset - mean[..., None]).square()).sum(-1)
        before, total = self.mass[:, :, rows], self.mass[:, :, rows] + mass
        step = mean + keys[0] - self.mean[:, :, rows]
        self.spread[:, :, rows] += spread + step.square() * before * _ratio(mass, total)
        self.mean[:, :, rows] += step * _ratio(mass, total)
        self.mass[:, :, rows] = total

    def variance(self) -> Tensor:
        """Variance of each row's key position, (B, H, L)."""
        return _ratio(self.spread, self.mass)


def collect(
    summary: Summary,
    sums: tuple[Tensor, ...],
    running: RunningStats | None,
    log_sum_exp: Tensor | None,
    log_prob: Tensor | None = None,
) -> SummaryResult:
    """Assemble the summaries from the finished sums."""
    by_name = dict(zip(summary.sums, sums, strict=True))
    return SummaryResult(
        log_sum_exp=log_sum_exp,
        log_prob=log_prob,
        entropy=by_name.get("entropy"),
        expected_key=_ratio(by_name["moment"], by_name["mass"]) if summary.expected_key else None,
        key_variance=running.variance() if running is not None and summary.expected_key else None,
        key_mass=by_name.get("key_mass"),
        top_keys=running.top_keys if running is not None and summary.top_k else None,
        top_weights=running.top_weights if running is not None and summary.top_k else None,
        grid=by_name.get("grid"),
        weights=by_name.get("weights"),
    )


def _ratio(x: Tensor, total: Tensor) -> Tensor:
    """x / total; 0, with derivative 0, where the total is 0."""
    positive = total > 0
    return torch.where(positive, x / torch.where(positive, total, 1.0), 0.0)


def _key_positions(frame: Frame, like: Tensor) -> Tensor:
    return torch.arange(frame.columns.start, frame.columns.stop, device=like.device) + frame.key_start


def _binned(summary: Summary, weights: Tensor, frame: Frame) -> Tensor:
    """Contribution of a tile to the mean weight in each grid cell, (B, H, query bins, key bins)."""
    query_bins, key_bins = summary.grid or (1, 1)
    rows = bin_shares(frame.rows, frame.num_queries, query_bins, weights)
    columns = bin_shares(frame.columns, frame.num_keys, key_bins, weights)
    return rows.T @ weights @ columns


def bin_shares(part: slice, length: int, bins: int, like: Tensor) -> Tensor:
    """Averaging matrix (part, bins): row i has 1 / (bin size) in the column of the bin of index part.start + i."""
    edges = -(torch.arange(bins + 1, device=like.device) * length // -bins)  # bin b starts at ceil(b * length / bins)
    index = torch.arange(part.start, part.stop, device=like.device) * bins // length
    return torch.nn.functional.one_hot(index, bins).to(like.dtype) / edges.diff()
