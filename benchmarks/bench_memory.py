"""How much memory does chunked attention take beyond inputs, outputs and gradients? Each case in a fresh process."""

import json
import sys
import time

import torch
from common import Peak, fresh, worst, write

import regard as rg

MIB = 2**20


def window(length: int) -> tuple[tuple[torch.Tensor, ...], dict[str, object]]:
    """A causal window of 512, 4 heads of 64."""
    tensors = tuple(torch.randn(1, 4, length, 64, requires_grad=True) for _ in range(3))
    return tensors, {"pattern": rg.Causal() & rg.SlidingWindow(left=512)}


def additive(length: int) -> tuple[tuple[torch.Tensor, ...], dict[str, object]]:
    """Bahdanau's score, one head of 256."""
    tensors = tuple(torch.randn(1, 1, length, 256, requires_grad=True) for _ in range(3))
    return tensors, {"score": rg.Additive(torch.randn(256, requires_grad=True))}


CASES = {"window": (window, 65536), "additive": (additive, 2048)}


def check(name: str) -> float:
    """The largest difference from the reference on a short input, output and gradients."""
    tensors, values = CASES[name][0](640)
    results = []
    for backend in ("chunked", "reference"):
        output = rg.attend(*tensors, **values, backend=backend)
        results.append([output, *torch.autograd.grad(output.sum(), tensors)])
    return max(worst(x, y) for x, y in zip(*results, strict=True))


def measure(name: str) -> None:
    """Forward and backward once, the first thing that this process computes; prints seconds and bytes."""
    torch.manual_seed(0)
    make, length = CASES[name]
    tensors, values = make(length)
    start = time.perf_counter()
    with Peak() as peak:
        output = rg.attend(*tensors, **values, backend="chunked")
        incoming = torch.ones_like(output)
        gradients = torch.autograd.grad(output, tensors, incoming)
    kept = sum(x.numel() * x.element_size() for x in (output, incoming, *gradients))
    seconds = time.perf_counter() - start
    print(json.dumps({"bytes": peak.bytes - kept, "seconds": seconds, "shape": list(tensors[0].shape)}))


def main() -> None:
    cases = []
    for name, title, limit in (
        ("window", "causal window of 512 over 65,536 tokens, 4 heads of 64, forward and backward", 60.0),
        ("additive", "additive scores over 2,048 x 2,048 x 256, forward and backward", None),
    ):
        found = fresh(__file__, name)
        common = {"shape": found["shape"], "dtype": "float32", "error": check(name)}
        mib = round(found["bytes"] / MIB, 1)
        cases.append({"case": f"memory: {title}", "unit": "MiB beyond results", "value": mib, "bar": 256.0, **common})
        if limit is not None:
            seconds = round(found["seconds"], 2)
            cases.append({"case": f"time: {title}", "unit": "seconds", "value": seconds, "bar": limit, **common})
    write("memory", cases)


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
