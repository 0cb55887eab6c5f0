"""Tiled attention in memory linear in the length, on any device, for every score, normalizer and pattern.

Softmax uses a running max and sum over tiles of keys (online softmax), and the backward pass recomputes the weights of
each tile from the row's max and log-sum (Rabe and Staats 2021, arXiv 2112.05682; Dao et al. 2022, arXiv 2205.14135,
algorithms 1 and 4). For normalizers with a threshold, which depends on whole rows, a tile is a strip: a block of
queries with all keys visible to it. Empty tiles are skipped. Everything except the online softmax is a sum over tiles,
and so are all gradients: see `tile_sum.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from regard.attention.dropout import keep_scale
from regard.attention.engine.call import Call
from regard.attention.engine.formula import drawn, masked_scores, mix, pick, shield, with_prior
from regard.attention.engine.tile_sum import (
    Output,
    any_batched,
    any_dual,
    any_grad,
    differentiable,
    gradient_sum,
    one_by_one,
    pull,
    slice_tile,
    tile_sum,
)
from regard.attention.engine.tiling import Tile, cut
from regard.attention.engine.tracing import vmapped
from regard.attention.hard import Hard
from regard.attention.normalizer import NormalizedSigmoid, Normalizer, RowStats, Sigmoid, Softmax, finite, sink_of
from regard.attention.spec import AttentionSpec
from regard.attention.summary import (
    Frame,
    RunningStats,
    Summary,
    SummaryResult,
    collect,
    contributions,
    sum_axes,
    sum_shapes,
)
from regard.attention.value import per_head, rebuild


def compute(
    call: Call, core: "Core | None" = None, summaries: "Summaries | None" = None
) -> tuple[Tensor, SummaryResult | None]:
    """Output (B, H, L, V) in the dtype of the query, and the requested summaries.

    `core` computes output and row stats of a call whose softmax has no sink, `summaries` the summaries from the row
    stats; by default both are tiled.
    """
    normalizer, sink = call.spec.normalizer, sink_of(call.spec.normalizer)
    if isinstance(normalizer, Softmax) and sink is not None:  # added at the end, by rescaling each row
        spec = AttentionSpec(**{**call.spec.arguments(), "normalizer": Softmax(prior=normalizer.prior)})
        call = call.with_spec(spec)
    output, row = (core or by_tiles)(call)
    if sink is not None:
        output, row = _join_sink(output, row, torch.as_tensor(per_head(sink, call.dtype), device=call.query.device))
    summary_result = None if call.summary is None else (summaries or summaries_by_tiles)(call, call.summary, row)
    return output.to(call.query.dtype), summary_result


def by_tiles(call: Call) -> tuple[Tensor, RowStats]:
    """Output and row stats, for a softmax without sink or any other normalizer."""
    tiled = _TiledCall(call)
    if isinstance(call.spec.normalizer, Softmax | NormalizedSigmoid):
        return tiled.softmax()
    return tiled.pointwise() if isinstance(call.spec.normalizer, Sigmoid) else tiled.strips()


def summaries_by_tiles(call: Call, summary: Summary, row: RowStats) -> SummaryResult:
    """Requested summaries, in another pass over the tiles."""
    return _TiledCall(call).summarize(summary, row)


Summaries = Callable[[Call, Summary, RowStats], SummaryResult]
Core = Callable[[Call], tuple[Tensor, RowStats]]


class _TileScores(NamedTuple):
    """Scores of a tile, with the inputs of the following steps; of `NormalizedSigmoid` as logits of a softmax."""

    spec: AttentionSpec
    normalizer: Normalizer  # with its noise, if it samples
    scores: Tensor
    value: Tensor
    sees: Tensor | None  # queries that see a key, as in `shield`; None for all
    query_BL: Tensor
    key_S: Tensor

    def weights(self, row: RowStats) -> Tensor:
        """Weights before the prior."""
        return self.normalizer.weights(self.scores, row)


class _TiledCall:
    """A call cut into tiles."""

    def __init__(self, call: Call) -> None:
        self.call, self.spec, self.dtype = call, call.spec, call.dtype
        self.blocks = cut(call)
        self.tiles = [tile for block in self.blocks for tile in block.tiles]
        self.query_BL, self.key_S = call.positions()
        fields = call.spec.tensor_fields
        self.inputs = [call.query, call.key, call.value, *(field.tensor for field in fields)]
        self.axes = ["BHLE", "BGSE", "BGSV", *(field.axes for field in fields)]
        batch, heads, rows, _ = call.query.shape
        self.rows = (batch, heads, rows)
        self.out = Output((*self.rows, call.value.shape[3]), self.dtype, "BHLV")
        self.row = Output((*self.rows, 1), self.dtype, "BHLi")

    def view(self, tile: Tile, query: Tensor, key: Tensor, value: Tensor, *field_tensors: Tensor) -> _TileScores:
        """Scores of a tile from its slices of the inputs."""
        spec = rebuild(self.spec, iter(field_tensors))
        query_BL, key_S = self.query_BL[:, tile.rows], slice_tile(self.key_S, "S", tile)
        visible = sees = None
        if not all(run.full for run in tile.runs):
            visible = spec.pattern.visible(query_BL, key_S)
            query, key, value, sees = shield(query, key, value, visible)
        query, key, value = (x.to(self.dtype) for x in (query, key, value))
        widths = [run.stop - run.start for run in tile.runs]
        scores = masked_scores(spec, query, key, query_BL, key_S, visible, widths)
        batch, heads, _ = self.rows
        runs = [slice(*run[:2]) for run in tile.runs]
        normalizer = drawn(spec.normalizer, self.call.seed, batch, heads, tile.rows, runs, scores)
        if isinstance(normalizer, NormalizedSigmoid):
            scores = normalizer.logits(scores)
            normalizer = Softmax()
        return _TileScores(spec, normalizer, scores, value, sees, query_BL, key_S)

    def keep(self, tile: Tile) -> Tensor | None:
        """Dropout factors of a tile; None without dropout."""
        if self.call.seed is None or not self.spec.dropout:
            return None
        batch, heads, _ = self.rows
        scales = [
            keep_scale(self.spec.dropout, self.call.seed, batch, heads, tile.rows, slice(*run[:2]), self.dtype)
            for run in tile.runs
        ]
        return scales[0] if len(scales) == 1 else torch.cat(scales, -1)

    def contribution(self, tile: Tile, view: _TileScores, weights: Tensor) -> Tensor:
        """Contribution of a tile to the output, from its weights before the prior."""
        weights = with_prior(view.spec, weights, view.query_BL, view.key_S)
        keep = self.keep(tile)
        output = mix(weights if keep is None else weights * keep, view.value)
        return output if view.sees is None else torch.where(view.sees, output, 0)

    def pick(self, tile: Tile, view: _TileScores, normalizer: Hard) -> Tensor:
        """Contribution of a tile to the output of a normalizer that chooses one key a row."""
        output = pick(normalizer, view.scores, view.value, self.keep(tile))
        return output if view.sees is None else torch.where(view.sees, output, 0)

    def softmax(self) -> tuple[Tensor, RowStats]:
        """Output in the compute dtype, and row stats, of a softmax."""
        needs_grad = any_grad(self.inputs)
        if vmapped() or (needs_grad and not any_dual(self.inputs) and not any_batched(self.inputs)):
            output, row_max, offset = _OnlineSoftmax.apply(self, *self.inputs)  # type: ignore[no-untyped-call]
        else:
            with torch.set_grad_enabled(needs_grad):  # see `tile_sum`
                output, row_max, offset = self.online(self.inputs)
        return output, RowStats(row_max, offset)

    def online(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Online softmax: output, row max and log-sum of every row."""
        device = self.query_BL.device
        output = torch.zeros(self.out.shape, dtype=self.dtype, device=device)
        row_max = torch.zeros(self.row.shape, dtype=self.dtype, device=device)
        offset = torch.full_like(row_max, -torch.inf)
        for block in self.blocks:
            running: tuple[Tensor, Tensor, Tensor] | None = None
            for tile in block.tiles:
                view = self.view(tile, *(slice_tile(x, a, tile) for x, a in zip(inputs, self.axes, strict=True)))
                new_max = view.scores.amax(-1, keepdim=True)
                if running is not None:
                    new_max = torch.maximum(new_max, running[0])
                safe = finite(new_max)
                weights = torch.exp(view.scores - safe)
                mixed, total = self.contribution(tile, view, weights), weights.sum(-1, keepdim=True)
                if running is not None:
                    rescale = torch.exp(running[0] - safe)
                    total, mixed = total + running[1] * rescale, mixed + running[2] * rescale
                running = (new_max, total, mixed)
            if running is not None:
                new_max, total, mixed = running
                positive = total > 0
                output[:, :, block.rows] = mixed / torch.where(positive, total, 1.0)
                row_max[:, :, block.rows] = finite(new_max)
                offset[:, :, block.rows] = torch.where(positive, torch.log(total), -torch.inf)
        return output, row_max, offset

    def pointwise(self) -> tuple[Tensor, RowStats]:
        """Output and row stats of an elementwise normalizer, a plain sum over tiles."""
        zero = self.query_BL.new_zeros((1, 1, 1, 1), dtype=self.dtype)
        row = RowStats(zero, zero)

        def add(tile: Tile, *parts: Tensor) -> Sequence[Tensor]:
            view = self.view(tile, *parts)
            return (self.contribution(tile, view, view.weights(row)),)

        (output,) = tile_sum(add, self.tiles, self.inputs, self.axes, [self.out])
        return output, row

    def strips(self) -> tuple[Tensor, RowStats]:
        """Output and row stats of a normalizer that needs whole rows: each tile has all keys visible to its rows."""

        def add(tile: Tile, *parts: Tensor) -> Sequence[Tensor]:
            view = self.view(tile, *parts)
            row = view.normalizer.row_stats(view.scores)
            if isinstance(view.normalizer, Hard) and not view.normalizer.dense:
                return self.pick(tile, view, view.normalizer), row.max, row.offset
            return self.contribution(tile, view, view.weights(row)), row.max, row.offset

        output, row_max, offset = tile_sum(add, self.tiles, self.inputs, self.axes, [self.out, self.row, self.row])
        return output, RowStats(row_max.detach(), offset)

    def summarize(self, summary: Summary, row: RowStats) -> SummaryResult:
        """Summaries from the row stats, in another pass over the tiles."""
        batch, heads, num_queries = self.rows
        num_keys = self.call.key.shape[2]
        running = RunningStats(summary, batch, heads, num_queries, row.max) if summary.merged else None
        pending, count = running, len(self.inputs)

        def add(tile: Tile, *parts: Tensor) -> Sequence[Tensor]:
            view = self.view(tile, *parts[:count])
            weights = view.weights(RowStats(*parts[count:]))
            weights = with_prior(view.spec, weights, view.query_BL, view.key_S)
            sums = []
            done = 0
            for run in tile.runs:
                frame = Frame(tile.rows, slice(run.start, run.stop), num_queries, num_keys, self.call.key_start)
                piece = weights.narrow(-1, done, run.stop - run.start)
                done += run.stop - run.start
                sums.append(contributions(summary, piece, frame))
                if pending is not None:
                    pending.add(piece, frame)
            joined = zip(*sums, strict=True)
            results = [
                torch.cat(parts, -1) if "S" in axes else sum(parts[1:], parts[0])
                for axes, parts in zip(sum_axes(summary), joined, strict=True)
            ]
            return [*results, view.normalizer.log_prob(view.scores)] if summary.log_prob else results

        axes = sum_axes(summary)
        shapes = sum_shapes(summary, batch, heads, num_queries, num_keys)
        outputs = [Output(shape, self.dtype, a) for shape, a in zip(shapes, axes, strict=True)]
        if summary.log_prob:
            outputs.append(Output(self.rows, self.dtype, "BHL"))
        sums: tuple[Tensor, ...] = ()
        if outputs or running is not None:
            inputs, input_axes = [*self.inputs, *row], [*self.axes, "BHLi", "BHLi"]
            sums = tile_sum(add, self.tiles, inputs, input_axes, outputs)
        pending = None  # backward calls `add` again and must not merge twice
        log_sum_exp = (row.max + row.offset).squeeze(-1) if summary.log_sum_exp else None
        log_prob = sums[-1] if summary.log_prob else None
        return collect(summary, sums[: len(axes)], running, log_sum_exp, log_prob)


class _OnlineSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(tiled: _TiledCall, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tiled.online(inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.tiled = inputs[0]
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs[1:], *output)

    @staticmethod
    def backward(ctx: Any, d_output: Tensor, _: Tensor, d_offset: Tensor) -> tuple[Any, ...]:
        tiled: _TiledCall = ctx.tiled
        *inputs, output, row_max, offset = ctx.saved_tensors
        grad_indices = [i for i, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
        # d weights / d offset = -weights, so the offset's gradient through the output is -(d_output . output)
        d_offset = d_offset - (d_output * output).sum(-1, keepdim=True)
        d_offset = torch.where(offset == -torch.inf, 0.0, d_offset)  # no gradient for a row without visible keys
        grads = gradient_sum(
            _softmax_pullback(tiled, grad_indices),
            tiled.tiles,
            [*inputs, row_max, offset, d_output, d_offset],
            [*tiled.axes, "BHLi", "BHLi", "BHLV", "BHLi"],
            grad_indices,
        )
        return (None, *grads[: len(inputs)])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, ...]:
        return one_by_one(_OnlineSoftmax, info, in_dims, arguments)


def _softmax_pullback(tiled: _TiledCall, grad_indices: Sequence[int]) -> Any:
    """Pullback of a tile through the output and through the log-sum, whose derivative is the weights."""
    count = len(tiled.inputs)

    def pullback(tile: Tile, *parts: Tensor) -> Sequence[Tensor | None]:
        create_graph = torch.is_grad_enabled()
        row_max, offset, d_output, d_offset = parts[count:]
        row = RowStats(row_max, offset)
        with torch.enable_grad():
            inputs = differentiable(parts[:count], grad_indices, create_graph)
            view = tiled.view(tile, *inputs)
            weights = view.weights(row)
            output = tiled.contribution(tile, view, weights)
            d_scores = (weights if create_graph else weights.detach()) * d_offset
            return pull([output, view.scores], [inputs[i] for i in grad_indices], [d_output, d_scores], create_graph)

    return pullback


def _join_sink(output: Tensor, row: RowStats, sink: Tensor) -> tuple[Tensor, RowStats]:
    """Output and row stats after adding a sink to the denominator; without visible keys they are the sink's."""
    sees = row.offset > -torch.inf
    offset = torch.where(sees, row.offset, 0.0)
    margin = row.max - sink + offset  # log-sum-exp of the keys minus the sink
    joined = torch.where(sees, offset - functional.logsigmoid(margin), sink - row.max)
    # Not torch.sigmoid, whose derivative computes 1 - share, with cancellation.
    share = torch.exp(functional.logsigmoid(margin))
    return torch.where(sees, output * share, 0.0), RowStats(row.max, joined)
