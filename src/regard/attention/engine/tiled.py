"""Attention tile by tile, in memory linear in the length, on any device; for every score, normalizer and pattern.

Softmax is taken with a running maximum and sum over tiles of keys, and the backward pass recomputes each tile's
weights from the row's statistic (Rabe and Staats 2021, arXiv 2112.05682; Dao et al. 2022, arXiv 2205.14135, algorithms
1 and 4). Normalizers that need a whole row to find their threshold are taken by strips: a block of queries against all
keys that it reaches. Tiles that the pattern leaves empty are never visited. Everything but the running softmax is a sum
over tiles, and so are all gradients: see `tile_sum.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from regard.attention.dropout import keep_scale
from regard.attention.engine.call import Call
from regard.attention.engine.formula import masked_scores, mix, shield, with_prior
from regard.attention.engine.tile_sum import (
    Output,
    any_batched,
    any_dual,
    any_grad,
    differentiable,
    gradient_sum,
    one_by_one,
    part,
    pull,
    tile_sum,
)
from regard.attention.engine.tiling import Tile, cut
from regard.attention.engine.tracing import vmapped
from regard.attention.normalizer import Sigmoid, Softmax, Statistic, finite, sink_of
from regard.attention.spec import AttentionSpec
from regard.attention.summary import Frame, Merger, Seen, Summary, collect, contributions, sum_axes, sum_shapes
from regard.attention.value import per_head, rebuild


def compute(call: Call, core: "Core | None" = None, summaries: "Summaries | None" = None) -> tuple[Tensor, Seen | None]:
    """The output (B, H, L, V) in the dtype of the query, and the summaries if any are asked for.

    `core` gives the output and statistic of a call whose softmax has no sink, `summaries` what is asked for besides,
    given each row's statistic; by default both go by tiles.
    """
    normalizer, sink = call.spec.normalizer, sink_of(call.spec.normalizer)
    if isinstance(normalizer, Softmax) and sink is not None:  # joins at the end: a rescaling of each row
        spec = AttentionSpec(**{**call.spec.arguments(), "normalizer": Softmax(prior=normalizer.prior)})
        call = call.with_spec(spec)
    output, row = (core or by_tiles)(call)
    if sink is not None:
        output, row = _join_sink(output, row, torch.as_tensor(per_head(sink, call.dtype), device=call.query.device))
    seen = None if call.summary is None else (summaries or summaries_by_tiles)(call, call.summary, row)
    return output.to(call.query.dtype), seen


def by_tiles(call: Call) -> tuple[Tensor, Statistic]:
    """The output and the statistic of each row, for a softmax without sink, or any other normalizer."""
    work = _Work(call)
    if isinstance(call.spec.normalizer, Softmax):
        return work.softmax()
    return work.pointwise() if isinstance(call.spec.normalizer, Sigmoid) else work.strips()


def summaries_by_tiles(call: Call, summary: Summary, row: Statistic) -> Seen:
    """What a summary asks for, in one further pass."""
    return _Work(call).summarize(summary, row)


Summaries = Callable[[Call, Summary, Statistic], Seen]
Core = Callable[[Call], tuple[Tensor, Statistic]]


class _View(NamedTuple):
    """A tile's scores, and what is needed to go on from them."""

    spec: AttentionSpec
    scores: Tensor
    value: Tensor
    sees: Tensor | None  # which queries see something; None if all do
    query_BL: Tensor
    key_S: Tensor

    def weights(self, row: Statistic) -> Tensor:
        """Weights before the prior."""
        return self.spec.normalizer.weights(self.scores, row)


class _Work:
    """One call, cut into tiles."""

    def __init__(self, call: Call) -> None:
        self.call, self.spec, self.dtype = call, call.spec, call.dtype
        self.blocks = cut(call)
        self.tiles = [tile for block in self.blocks for tile in block.tiles]
        self.query_BL, self.key_S = call.positions()
        held = call.spec.held
        self.inputs = [call.query, call.key, call.value, *(leaf.tensor for leaf in held)]
        self.axes = ["BHLE", "BGSE", "BGSV", *(leaf.axes for leaf in held)]
        batch, heads, rows, _ = call.query.shape
        self.rows = (batch, heads, rows)
        self.out = Output((*self.rows, call.value.shape[3]), self.dtype, "BHLV")
        self.row = Output((*self.rows, 1), self.dtype, "BHLi")

    def view(self, tile: Tile, query: Tensor, key: Tensor, value: Tensor, *held: Tensor) -> _View:
        """The scores of a tile from its parts of the inputs."""
        spec = rebuild(self.spec, iter(held))
        query_BL, key_S = self.query_BL[:, tile.rows], part(self.key_S, "S", tile)
        visible = sees = None
        if not all(run.full for run in tile.runs):
            visible = spec.pattern.visible(query_BL, key_S)
            query, key, value, sees = shield(query, key, value, visible)
        query, key, value = (x.to(self.dtype) for x in (query, key, value))
        widths = [run.stop - run.start for run in tile.runs]
        scores = masked_scores(spec, query, key, query_BL, key_S, visible, widths)
        return _View(spec, scores, value, sees, query_BL, key_S)

    def keep(self, tile: Tile) -> Tensor | None:
        """The tile's dropout factors; None without dropout."""
        if self.call.seed is None:
            return None
        batch, heads, _ = self.rows
        scales = [
            keep_scale(self.spec.dropout, self.call.seed, batch, heads, tile.rows, slice(*run[:2]), self.dtype)
            for run in tile.runs
        ]
        return scales[0] if len(scales) == 1 else torch.cat(scales, -1)

    def mixed(self, tile: Tile, view: _View, weights: Tensor) -> Tensor:
        """What the tile adds to the output of its rows, by their weights before the prior."""
        weights = with_prior(view.spec, weights, view.query_BL, view.key_S)
        keep = self.keep(tile)
        output = mix(weights if keep is None else weights * keep, view.value)
        return output if view.sees is None else torch.where(view.sees, output, 0)

    def softmax(self) -> tuple[Tensor, Statistic]:
        """The output before it is cast, and the statistic of each row."""
        graded = any_grad(self.inputs)
        if vmapped() or (graded and not any_dual(self.inputs) and not any_batched(self.inputs)):
            output, shift, level = _OnlineSoftmax.apply(self, *self.inputs)  # type: ignore[no-untyped-call]
        else:
            with torch.set_grad_enabled(graded):  # see `tile_sum`
                output, shift, level = self.online(self.inputs)
        return output, Statistic(shift, level)

    def online(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Softmax with a running maximum and sum: output, shift and level of every row."""
        device = self.query_BL.device
        output = torch.zeros(self.out.shape, dtype=self.dtype, device=device)
        shift = torch.zeros(self.row.shape, dtype=self.dtype, device=device)
        level = torch.full_like(shift, -torch.inf)
        for block in self.blocks:
            running: tuple[Tensor, Tensor, Tensor] | None = None
            for tile in block.tiles:
                view = self.view(tile, *(part(x, a, tile) for x, a in zip(inputs, self.axes, strict=True)))
                top = view.scores.amax(-1, keepdim=True)
                if running is not None:
                    top = torch.maximum(top, running[0])
                safe = finite(top)
                weights = torch.exp(view.scores - safe)
                mixed, total = self.mixed(tile, view, weights), weights.sum(-1, keepdim=True)
                if running is not None:
                    shrink = torch.exp(running[0] - safe)
                    total, mixed = total + running[1] * shrink, mixed + running[2] * shrink
                running = (top, total, mixed)
            if running is not None:
                top, total, mixed = running
                some = total > 0
                output[:, :, block.rows] = mixed / torch.where(some, total, 1.0)
                shift[:, :, block.rows] = finite(top)
                level[:, :, block.rows] = torch.where(some, torch.log(total), -torch.inf)
        return output, shift, level

    def pointwise(self) -> tuple[Tensor, Statistic]:
        """A normalizer that weighs each key by itself: the output is a sum over tiles."""
        none = self.query_BL.new_zeros((1, 1, 1, 1), dtype=self.dtype)
        row = Statistic(none, none)

        def add(tile: Tile, *parts: Tensor) -> Sequence[Tensor]:
            view = self.view(tile, *parts)
            return (self.mixed(tile, view, view.weights(row)),)

        (output,) = tile_sum(add, self.tiles, self.inputs, self.axes, [self.out])
        return output, row

    def strips(self) -> tuple[Tensor, Statistic]:
        """A normalizer that needs whole rows: each tile is a strip that holds all that its rows reach."""

        def add(tile: Tile, *parts: Tensor) -> Sequence[Tensor]:
            view = self.view(tile, *parts)
            row = view.spec.normalizer.statistic(view.scores)
            return self.mixed(tile, view, view.weights(row)), row.shift, row.level

        output, shift, level = tile_sum(add, self.tiles, self.inputs, self.axes, [self.out, self.row, self.row])
        return output, Statistic(shift.detach(), level)

    def summarize(self, summary: Summary, row: Statistic) -> Seen:
        """One further pass over the tiles, given each row's statistic."""
        batch, heads, num_queries = self.rows
        num_keys = self.call.key.shape[2]
        merger = Merger(summary, batch, heads, num_queries, row.shift) if summary.merged else None
        pending, count = merger, len(self.inputs)

        def add(tile: Tile, *parts: Tensor) -> Sequence[Tensor]:
            view = self.view(tile, *parts[:count])
            weights = view.weights(Statistic(*parts[count:]))
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
            return tuple(
                torch.cat(parts, -1) if "S" in axes else sum(parts[1:], parts[0])
                for axes, parts in zip(sum_axes(summary), joined, strict=True)
            )

        axes = sum_axes(summary)
        shapes = sum_shapes(summary, batch, heads, num_queries, num_keys)
        outputs = [Output(shape, self.dtype, a) for shape, a in zip(shapes, axes, strict=True)]
        sums: tuple[Tensor, ...] = ()
        if outputs or merger is not None:
            given, given_axes = [*self.inputs, *row], [*self.axes, "BHLi", "BHLi"]
            sums = tile_sum(add, self.tiles, given, given_axes, outputs)
        pending = None  # a gradient computes the tiles again
        log_sum_exp = (row.shift + row.level).squeeze(-1) if summary.log_sum_exp else None
        return collect(summary, sums, merger, log_sum_exp)


class _OnlineSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(work: _Work, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return work.online(inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.work = inputs[0]
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs[1:], *output)

    @staticmethod
    def backward(ctx: Any, d_output: Tensor, _: Tensor, d_level: Tensor) -> tuple[Any, ...]:
        work: _Work = ctx.work
        *inputs, output, shift, level = ctx.saved_tensors
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
        # d weights / d level = -weights, so the level's gradient through the output is -(d_output . output)
        d_level = d_level - (d_output * output).sum(-1, keepdim=True)
        d_level = torch.where(level == -torch.inf, 0.0, d_level)  # a row that sees nothing takes no gradient
        grads = gradient_sum(
            _softmax_pullback(work, wanted),
            work.tiles,
            [*inputs, shift, level, d_output, d_level],
            [*work.axes, "BHLi", "BHLi", "BHLV", "BHLi"],
            wanted,
        )
        return (None, *grads[: len(inputs)])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, ...]:
        return one_by_one(_OnlineSoftmax, info, in_dims, arguments)


def _softmax_pullback(work: _Work, wanted: Sequence[int]) -> Any:
    """Gradients of a tile, through its part of the output and through the level, whose derivative is the weights."""
    count = len(work.inputs)

    def pullback(tile: Tile, *parts: Tensor) -> Sequence[Tensor | None]:
        again = torch.is_grad_enabled()
        shift, level, d_output, d_level = parts[count:]
        row = Statistic(shift, level)
        with torch.enable_grad():
            inputs = differentiable(parts[:count], wanted, again)
            view = work.view(tile, *inputs)
            weights = view.weights(row)
            output = work.mixed(tile, view, weights)
            d_scores = (weights if again else weights.detach()) * d_level
            return pull([output, view.scores], [inputs[i] for i in wanted], [d_output, d_scores], again)

    return pullback


def _join_sink(output: Tensor, row: Statistic, sink: Tensor) -> tuple[Tensor, Statistic]:
    """The output and statistic of rows whose denominator a sink joins; a row that sees nothing keeps the sink's."""
    sees = row.level > -torch.inf
    level = torch.where(sees, row.level, 0.0)
    margin = row.shift - sink + level  # of all keys together over the sink
    joined = torch.where(sees, level - functional.logsigmoid(margin), sink - row.shift)
    share = torch.exp(functional.logsigmoid(margin))  # sigmoid's own derivative would take 1 - share, and cancel
    return torch.where(sees, output * share, 0.0), Statistic(row.shift, joined)
