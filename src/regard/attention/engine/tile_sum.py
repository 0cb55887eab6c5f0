"""Sums over the tiles of the score matrix, differentiable to any order in memory linear in the length.

A tile function maps the tile's slice of each input to the tile's contribution to each output. The gradient of such a
sum is again a sum over the same tiles, of the gradient of the tile function: it maps the tile's slices of inputs and
incoming gradients to contributions to the input gradients. One `torch.autograd.Function` whose backward is another tile
sum therefore gives derivatives of every order, with the graph of only one tile in memory at a time.
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
    """Output of a tile sum: full shape, dtype, and axes in the notation of `value.tensor_field`."""

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
        function: maps a tile and its slice of each input to its contribution to each output; None for no contribution.
        tiles: the tiles.
        inputs: the full tensors.
        axes: axes of each input in the notation of `value.tensor_field`; L is sliced to rows and S to columns.
        outputs: the outputs to accumulate.

    Returns:
        The sums, one for each output.
    """
    graded = any_grad(inputs)
    if vmapped() or (graded and not any_dual(inputs) and not any_batched(inputs)):
        sums: tuple[Tensor, ...] = _TileSum.apply(function, tiles, axes, outputs, *inputs)  # type: ignore[no-untyped-call]
        return sums
    # Forward-mode tangents and batched gradients propagate through the operations of the loop, as do their gradients.
    with torch.set_grad_enabled(graded):
        return _loop(function, tiles, inputs, axes, outputs)


def any_grad(tensors: Sequence[Tensor]) -> bool:
    """Whether a result computed from the tensors requires a gradient."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def any_batched(tensors: Sequence[Tensor]) -> bool:
    """Whether any tensor is batched, as gradients in `torch.autograd.grad(is_grads_batched=True)`."""
    return any(torch._C._functorch.is_legacy_batchedtensor(x) for x in tensors)


def any_dual(tensors: Sequence[Tensor]) -> bool:
    """Whether any tensor has a forward-mode tangent."""
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(x).tangent is not None for x in tensors if x.is_floating_point())


def slice_tile(x: Tensor, axes: str, tile: Tile) -> Tensor:
    """Slice of a tensor for a tile, with its runs of columns concatenated."""
    row, column = axis(x, axes, "L"), axis(x, axes, "S")
    if row is not None and x.shape[row] != 1:
        x = x.narrow(row, tile.rows.start, tile.rows.stop - tile.rows.start)
    if column is not None and x.shape[column] != 1:
        runs = [x.narrow(column, run.start, run.stop - run.start) for run in tile.runs]
        x = runs[0] if len(runs) == 1 else torch.cat(runs, column)
    return x


def _add_tile(total: Tensor, axes: str, tile: Tile, x: Tensor) -> None:
    row, column = axis(total, axes, "L"), axis(total, axes, "S")
    if row is not None and total.shape[row] != 1:
        total = total.narrow(row, tile.rows.start, tile.rows.stop - tile.rows.start)
    if column is None or total.shape[column] == 1:
        total += x
        return
    done = 0
    for run in tile.runs:
        width = run.stop - run.start
        columns = total.narrow(column, run.start, width)
        columns += x.narrow(column, done, width)
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
        parts = function(tile, *(slice_tile(x, a, tile) for x, a in zip(inputs, axes, strict=True)))
        for i, (output, x) in enumerate(zip(outputs, parts, strict=True)):
            if x is None:
                continue
            if batched:  # an in-place sum needs a batched accumulator
                sums[i] = sums[i] + x.new_zeros(())
            _add_tile(sums[i], output.axes, tile, x)
    return tuple(sums)


def one_by_one(function: Any, info: Any, in_dims: tuple[Any, ...], arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Batching rule of torch.vmap for an autograd function that returns tensors: a loop over the examples.

    Args:
        function: the autograd function.
        info: vmap info of PyTorch; `batch_size` is the number of examples.
        in_dims: batch dimension of each argument; not an int if it is not batched.
        arguments: arguments of the function.

    Returns:
        The outputs stacked in dimension 0, and their batch dimensions.
    """
    pairs = list(zip(arguments, in_dims, strict=True))
    examples = [
        function.apply(*(x.select(dim, i) if isinstance(dim, int) else x for x, dim in pairs))
        for i in range(info.batch_size)
    ]
    stacked = tuple(torch.stack(tensors) for tensors in zip(*examples, strict=True))
    return stacked, (0,) * len(stacked)


class _TileSum(torch.autograd.Function):
    """Tile sum with a gradient. Under torch.vmap it is only used for gradients; backends refuse the forward pass."""

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
        grad_indices = [i for i, needed in enumerate(ctx.needs_input_grad[4:]) if needed]
        live = [i for i, gradient in enumerate(incoming) if gradient is not None]
        pullback = _pullback(ctx.function, len(inputs), grad_indices, live)
        grads = gradient_sum(
            pullback, ctx.tiles, [*inputs, *(g for g in incoming if g is not None)],
            [*ctx.axes, *(ctx.outputs[i].axes for i in live)], grad_indices,
        )  # fmt: skip
        return (None, None, None, None, *grads[: len(inputs)])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, ...]:
        return one_by_one(_TileSum, info, in_dims, arguments)


def gradient_sum(
    pullback: TileFunction,
    tiles: Sequence[Tile],
    inputs: Sequence[Tensor],
    axes: Sequence[str],
    grad_indices: Sequence[int],
) -> list[Tensor | None]:
    """Gradients of inputs `grad_indices` as a tile sum: accumulated in at least float32, cast to the input dtype."""
    outputs = [Output(tuple(inputs[i].shape), _wide(inputs[i].dtype), axes[i]) for i in grad_indices]
    grads: list[Tensor | None] = [None] * len(inputs)
    for i, grad in zip(grad_indices, tile_sum(pullback, tiles, inputs, axes, outputs), strict=True):
        grads[i] = grad.to(inputs[i].dtype)
    return grads


def pull(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], incoming: Sequence[Tensor], create_graph: bool
) -> list[Tensor | None]:
    """Vector-Jacobian products of the differentiable outputs; None for inputs that they do not depend on."""
    live = [(o, g) for o, g in zip(outputs, incoming, strict=True) if o.requires_grad]
    if not live:
        return [None] * len(inputs)
    outs, cotangents = zip(*live, strict=True)
    return list(torch.autograd.grad(outs, list(inputs), cotangents, create_graph=create_graph, allow_unused=True))


def differentiable(parts: Sequence[Tensor], grad_indices: Sequence[int], create_graph: bool) -> list[Tensor]:
    """Make tensors `grad_indices` leaves of a new graph, or nodes of the outer graph if `create_graph`."""
    # Without an outer graph everything is detached: a view taken without gradients still has requires_grad set.
    return [
        alias(x) if create_graph and x.requires_grad else x.detach().requires_grad_(i in grad_indices)
        for i, x in enumerate(parts)
    ]


def alias(x: Tensor) -> Tensor:
    """The tensor as a separate graph node, so that one used as both key and value has a gradient for each use."""
    return x.view_as(x)


def _pullback(function: TileFunction, count: int, grad_indices: Sequence[int], live: Sequence[int]) -> TileFunction:
    """Tile function whose sum is the gradient of the sum of `function`; `live`: outputs with an incoming gradient."""

    def pullback(tile: Tile, *parts: Tensor) -> Sequence[Tensor | None]:
        create_graph = torch.is_grad_enabled()  # True if this pullback is itself differentiated
        with torch.enable_grad():
            inputs = differentiable(parts[:count], grad_indices, create_graph)
            outputs = function(tile, *inputs)
            pairs = [(outputs[i], g) for i, g in zip(live, parts[count:], strict=True)]
            present = [(o, g) for o, g in pairs if o is not None]
            leaves = [inputs[i] for i in grad_indices]
            return pull([o for o, _ in present], leaves, [g for _, g in present], create_graph)

    return pullback


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
