"""Sums over the tiles of the score matrix, differentiable any number of times in memory linear in the length.

A function of a tile takes the tile's part of each input and returns what the tile adds to its part of each output.
The gradient of such a sum is again a sum over the same tiles: of the function's own gradient, which takes the tile's
part of the inputs and of the incoming gradients, and adds to the tile's part of each input's gradient. So one
`torch.autograd.Function`, whose backward calls itself, gives derivatives of every order, and no order ever keeps more
than one tile's graph.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from regard.attention.engine.tiling import Tile
from regard.attention.engine.tracing import vmapped
from regard.attention.value import axis


class Output(NamedTuple):
    """An output of the sum: its whole shape, its dtype, and the axes that its dimensions run along."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    axes: str


TileFunction = Callable[..., Sequence[Tensor | None]]  # (tile, *parts of inputs) -> parts of outputs


def tile_sum(
    function: TileFunction,
    tiles: Sequence[Tile],
    inputs: Sequence[Tensor],
    axes: Sequence[str],
    outputs: Sequence[Output],
) -> tuple[Tensor, ...]:
    """Sum a function over tiles.

    Args:
        function: takes a tile and its part of each input, returns its part of each output, or None for nothing.
        tiles: where it is evaluated.
        inputs: whole tensors.
        axes: of each input, as `value.holds` writes them: what L cuts into rows and S into columns.
        outputs: what to add up.

    Returns:
        The sums, one for each output.
    """
    graded = any_grad(inputs)
    if vmapped() or (graded and not any_dual(inputs) and not any_batched(inputs)):
        sums: tuple[Tensor, ...] = _TileSum.apply(function, tiles, axes, outputs, *inputs)  # type: ignore[no-untyped-call]
        return sums
    # Forward-mode tangents and batched gradients pass through the loop by themselves, and so do gradients of them.
    with torch.set_grad_enabled(graded):
        return _loop(function, tiles, inputs, axes, outputs)


def any_grad(tensors: Sequence[Tensor]) -> bool:
    """Whether a result of the tensors has a gradient."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def any_batched(tensors: Sequence[Tensor]) -> bool:
    """Whether any of the tensors stands for many, as gradients do in `torch.autograd.grad(is_grads_batched=True)`."""
    return any(torch._C._functorch.is_legacy_batchedtensor(x) for x in tensors)


def any_dual(tensors: Sequence[Tensor]) -> bool:
    """Whether any of the tensors carries a forward-mode tangent."""
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(x).tangent is not None for x in tensors if x.is_floating_point())


def part(x: Tensor, axes: str, tile: Tile) -> Tensor:
    """The tile's part of a tensor; its runs of columns side by side."""
    row, column = axis(x, axes, "L"), axis(x, axes, "S")
    if row is not None and x.shape[row] != 1:
        x = x.narrow(row, tile.rows.start, tile.rows.stop - tile.rows.start)
    if column is not None and x.shape[column] != 1:
        runs = [x.narrow(column, run.start, run.stop - run.start) for run in tile.runs]
        x = runs[0] if len(runs) == 1 else torch.cat(runs, column)
    return x


def _add_part(total: Tensor, axes: str, tile: Tile, x: Tensor) -> None:
    row, column = axis(total, axes, "L"), axis(total, axes, "S")
    if row is not None and total.shape[row] != 1:
        total = total.narrow(row, tile.rows.start, tile.rows.stop - tile.rows.start)
    if column is None or total.shape[column] == 1:
        total += x
        return
    done = 0
    for run in tile.runs:
        width = run.stop - run.start
        place = total.narrow(column, run.start, width)
        place += x.narrow(column, done, width)
        done += width


def _loop(
    function: TileFunction,
    tiles: Sequence[Tile],
    inputs: Sequence[Tensor],
    axes: Sequence[str],
    outputs: Sequence[Output],
) -> tuple[Tensor, ...]:
    like, batched = inputs[0], any_batched(inputs)
    sums = [torch.zeros(o.shape, dtype=o.dtype, device=like.device) for o in outputs]
    for tile in tiles:
        parts = function(tile, *(part(x, a, tile) for x, a in zip(inputs, axes, strict=True)))
        for i, (output, x) in enumerate(zip(outputs, parts, strict=True)):
            if x is None:
                continue
            if batched:  # only a sum that has the examples itself can be added to in place
                sums[i] = sums[i] + x.new_zeros(())
            _add_part(sums[i], output.axes, tile, x)
    return tuple(sums)


def one_by_one(function: Any, info: Any, in_dims: tuple[Any, ...], arguments: Sequence[Any]) -> tuple[Any, ...]:
    """The rule by which torch.vmap takes an autograd function that returns tensors: each example by itself.

    Args:
        function: the class.
        info: PyTorch's; `batch_size` is the number of examples.
        in_dims: the dimension of the examples in each argument; no int where it has none.
        arguments: of the function.

    Returns:
        The tensors with the examples stacked in dimension 0, and these dimensions.
    """
    pairs = list(zip(arguments, in_dims, strict=True))
    examples = [
        function.apply(*(x.select(dim, i) if isinstance(dim, int) else x for x, dim in pairs))
        for i in range(info.batch_size)
    ]
    stacked = tuple(torch.stack(tensors) for tensors in zip(*examples, strict=True))
    return stacked, (0,) * len(stacked)


class _TileSum(torch.autograd.Function):
    """The sum with a gradient. Under torch.vmap, only gradients are such sums: forward, backends refuse it."""

    @staticmethod
    def forward(
        function: TileFunction, tiles: Sequence[Tile], axes: Sequence[str], outputs: Sequence[Output], *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        return _loop(function, tiles, inputs, axes, outputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function, ctx.tiles, ctx.axes, ctx.outputs = inputs[:4]
        ctx.save_for_backward(*inputs[4:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor | None) -> tuple[Any, ...]:
        inputs = ctx.saved_tensors
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[4:]) if needed]
        live = [i for i, gradient in enumerate(incoming) if gradient is not None]
        pullback = _pullback(ctx.function, len(inputs), wanted, live)
        grads = gradient_sum(
            pullback, ctx.tiles, [*inputs, *(g for g in incoming if g is not None)],
            [*ctx.axes, *(ctx.outputs[i].axes for i in live)], wanted,
        )  # fmt: skip
        return (None, None, None, None, *grads[: len(inputs)])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, ...]:
        return one_by_one(_TileSum, info, in_dims, arguments)


def gradient_sum(
    pullback: TileFunction, tiles: Sequence[Tile], inputs: Sequence[Tensor], axes: Sequence[str], wanted: Sequence[int]
) -> list[Tensor | None]:
    """The gradients of some inputs as a sum over tiles: added up in at least float32, returned in the input's dtype."""
    outputs = [Output(tuple(inputs[i].shape), _wide(inputs[i].dtype), axes[i]) for i in wanted]
    grads: list[Tensor | None] = [None] * len(inputs)
    for i, grad in zip(wanted, tile_sum(pullback, tiles, inputs, axes, outputs), strict=True):
        grads[i] = grad.to(inputs[i].dtype)
    return grads


def pull(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], incoming: Sequence[Tensor], again: bool
) -> list[Tensor | None]:
    """Gradients of the outputs that depend on anything; None for the inputs that they do not depend on."""
    live = [(o, g) for o, g in zip(outputs, incoming, strict=True) if o.requires_grad]
    if not live:
        return [None] * len(inputs)
    outs, cotangents = zip(*live, strict=True)
    return list(torch.autograd.grad(outs, list(inputs), cotangents, create_graph=again, allow_unused=True))


def differentiable(parts: Sequence[Tensor], wanted: Sequence[int], again: bool) -> list[Tensor]:
    """The parts, those wanted made the start of a graph, unless `again` and they already belong to an outer one."""
    # Outside a graph everything is detached: a view that was taken without gradients still says requires_grad.
    return [
        alias(x) if again and x.requires_grad else x.detach().requires_grad_(i in wanted) for i, x in enumerate(parts)
    ]


def alias(x: Tensor) -> Tensor:
    """The tensor as another node of the graph: one that is given as key and value has a gradient as each of them."""
    return x.view_as(x)


def _pullback(function: TileFunction, count: int, wanted: Sequence[int], live: Sequence[int]) -> TileFunction:
    """The function of a tile whose sum is the gradient of the given function's sum."""

    def pullback(tile: Tile, *parts: Tensor) -> Sequence[Tensor | None]:
        again = torch.is_grad_enabled()  # true where this pullback is itself being differentiated
        with torch.enable_grad():
            inputs = differentiable(parts[:count], wanted, again)
            outputs = function(tile, *inputs)
            pairs = [(outputs[i], g) for i, g in zip(live, parts[count:], strict=True)]
            present = [(o, g) for o, g in pairs if o is not None]
            return pull([o for o, _ in present], [inputs[i] for i in wanted], [g for _, g in present], again)

    return pullback


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
