"""Where the time of some work goes, and how fast this machine multiplies matrices."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

# The first of these that has the name of an operation, or of one that called it, is where its time goes.
CALLERS = (
    ("optimizer", ("Optimizer.step", "_fused_adamw", "Optimizer.zero_grad")),
    ("loss", ("CrossEntropy",)),
    ("dropout", ("dropout", "random_")),
    ("attention", ("scaled_dot_product",)),
)
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear", "mkldnn", "onednn")
REST = "Python and regard's own kernels"  # which PyTorch's profiler does not see
SIZES = (1024, 2048)  # of the matrices that the machine's rate is taken from; the best counts


def matrix_rates(precisions: Mapping[str, torch.dtype], *, quick: bool = False) -> dict[str, float]:
    """Operations a second of a product of two square matrices, by precision; a product and a sum count as two."""
    rates = {}
    for name, dtype in precisions.items():
        best = 0.0
        for size in (128,) if quick else SIZES:
            a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
            a @ b
            for _ in range(1 if quick else 7):
                start = time.perf_counter()
                a @ b
                best = max(best, 2 * size**3 / (time.perf_counter() - start))
        rates[name] = best
    return rates


def step_operations(step: Callable[[], int], *, steps: int) -> float:
    """The operations of matrix products, those of attention among them, a target token; `step` gives its tokens."""
    with FlopCounterMode(display=False) as counter:
        tokens = sum(step() for _ in range(steps))
    return counter.get_total_flops() / tokens


def step_profile(step: Callable[[], int], *, steps: int) -> dict[str, float]:
    """Shares of the time of some steps; REST is what passes outside of any operation of PyTorch.

    The profiler itself takes time, which is taken out by setting the operations' time against that of steps without it.
    """
    step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = time.perf_counter() - start
    spent = operation_seconds(lambda: [step() for _ in range(steps)])
    return shares(spent, seconds)


def shares(spent: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Shares of the whole, and what is left of it; operations that were slowed down are scaled back."""
    whole = max(seconds, sum(spent.values()))
    found = {name: round(x / whole, 4) for name, x in sorted(spent.items(), key=lambda item: -item[1])}
    return {**found, REST: round(max(0.0, 1 - sum(spent.values()) / whole), 4)}


def operation_seconds(run: Callable[[], Any]) -> dict[str, float]:
    """Seconds of this thread in operations, by what they are for; backward passes count where their forward does."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    spent: dict[str, float] = defaultdict(float)
    for event in profiler.events():
        spent[_purpose(event)] += event.self_cpu_time_total * 1e-6
    spent.pop("frame", None)
    return dict(spent)


def _purpose(event: Any) -> str:
    names, at = [], event
    while at is not None:
        names.append(at.name)
        at = at.cpu_parent
    for purpose, marks in CALLERS:
        if any(mark in name for name in names for mark in marks):
            return "frame" if purpose == "optimizer" and event.name.startswith("Optimizer.") else purpose
    if any(mark in event.name for mark in PRODUCTS):
        return "matrix products"
    if event.name.startswith("autograd::engine") or event.name.endswith("Backward0"):
        return "autograd"
    return "other"
