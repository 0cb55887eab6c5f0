"""Is chunked attention as fast as the dense formula where that fits, and does it gain what a pattern leaves out?"""

import math
from collections.abc import Callable

import torch
from common import alternate, ratio, worst, write
from torch import Tensor

import regard as rg
from regard.attention.patterns.pattern import Pattern

HEADS, DIM = 8, 64


def dense(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = (query @ key.transpose(-1, -2)) * (1 / math.sqrt(query.shape[-1]))
    return torch.softmax(scores, -1) @ value


def chunked(pattern: Pattern) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda query, key, value: rg.attend(query, key, value, pattern=pattern, backend="chunked")


def inputs(length: int) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    return tuple(torch.randn(1, HEADS, length, DIM, requires_grad=True) for _ in range(3))


def forward(attention: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad():
            attention(*tensors)

    return run


def both(attention: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> Callable[[], object]:
    incoming = torch.ones_like(tensors[0])
    return lambda: torch.autograd.grad(attention(*tensors), tensors, incoming)


def main() -> None:
    cases = []
    full, causal, window = chunked(rg.Full()), chunked(rg.Causal()), chunked(rg.Causal() & rg.SlidingWindow(left=256))
    short, long = inputs(1024), inputs(8192)
    error = worst(full(*short), dense(*short))
    reference = rg.attend(*short, pattern=rg.Causal() & rg.SlidingWindow(left=256), backend="reference")
    window_error = worst(window(*short), reference)
    for direction, run in (("forward", forward), ("forward and backward", both)):
        timed = alternate({"chunked": run(full, short), "dense eager": run(dense, short)}, 21)
        cases.append(
            {
                "case": f"chunked against the dense eager formula, 1,024 tokens, {direction}",
                "shape": [1, HEADS, 1024, DIM],
                "dtype": "float32",
                "unit": "x its time",
                "value": ratio(timed, "chunked", "dense eager"),
                "bar": 1.5,
                "times": timed,
                "error": error,
            }
        )
    for direction, run in (("forward", forward), ("forward and backward", both)):
        timed = alternate({"window": run(window, long), "causal": run(causal, long)}, 5)
        cases.append(
            {
                "case": f"chunked causal window of 256 against its own causal, 8,192 tokens, {direction}",
                "shape": [1, HEADS, 8192, DIM],
                "dtype": "float32",
                "unit": "x its time",
                "value": ratio(timed, "window", "causal"),
                "bar": 0.15,
                "times": timed,
                "error": window_error,
            }
        )
    write("chunked", cases)


if __name__ == "__main__":
    main()
