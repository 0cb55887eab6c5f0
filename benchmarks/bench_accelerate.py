"""What does `rg.accelerate` give BERT-base of `transformers` at inference, and each of its linear maps?

Against itself before, in alternation, in the same precision: random weights, 8 texts of 128 tokens.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import spread, worst, write
from torch import Tensor, nn
from transformers import BertConfig, BertModel

import regard as rg
from regard.layers.fast_linear import FASTER, FastLinear

TEXTS, TOKENS = 8, 128
BARS = {torch.float32: 1.8, torch.bfloat16: 1.15}
SHAPES = [(768, 768), (768, 3072), (3072, 768), (256, 256), (256, 1024), (1024, 256), (256, 8000)]  # BERT's and ours
ROWS = [1, 4, 32, 128, 1024]


def race(before: Callable[[], Tensor], after: Callable[[], Tensor], repeats: int) -> tuple[list[float], list[float]]:
    """Milliseconds of both, in neighbors that turn each time."""
    times: dict[Callable[[], Tensor], list[float]] = {before: [], after: []}
    turns = [before, after]
    for run in turns:
        run()
    for _ in range(repeats):
        turns.reverse()
        for run in turns:
            start = time.perf_counter()
            run()
            times[run].append(1e3 * (time.perf_counter() - start))
    return times[before], times[after]


def gain(before: list[float], after: list[float]) -> float:
    """The median ratio of neighbors."""
    return round(statistics.median(x / y for x, y in zip(before, after, strict=True)), 3)


def bert(dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """The whole model, its answer checked against float64."""
    torch.manual_seed(0)
    plain = BertModel(BertConfig()).eval().to(dtype)
    fast = rg.accelerate(copy.deepcopy(plain))
    ids = torch.randint(0, plain.config.vocab_size, (TEXTS, TOKENS))
    exact = copy.deepcopy(plain).double()(ids).last_hidden_state
    found, expected = fast(ids).last_hidden_state, plain(ids).last_hidden_state
    error, before_error = worst(found, exact), worst(expected, exact)
    if error > 2 * before_error:
        raise SystemExit(f"{dtype}: an error of {error}, {before_error} before: nothing to time")
    before, after = race(lambda: plain(ids)[0], lambda: fast(ids)[0], repeats)
    return {
        "case": f"BERT-base of transformers, {TEXTS} x {TOKENS} tokens, {dtype}: before / after rg.accelerate",
        "unit": "times",
        "value": gain(before, after),
        "bar": BARS[dtype],
        "at_least": True,
        "shape": [TEXTS, TOKENS],
        "dtype": str(dtype).removeprefix("torch."),
        "times": {"before": spread(before), "after": spread(after)},
        "sequences_a_second": {
            "before": round(1e3 * TEXTS / statistics.median(before), 2),
            "after": round(1e3 * TEXTS / statistics.median(after), 2),
        },
        "error": error,
        "error_before": before_error,
        "chosen": {
            f"{s.rows} x {s.inputs} x {s.outputs}": "packed" if faster else "plain"
            for s, faster in FASTER.items()
            if s.dtype == dtype
        },
    }


def linear(rows: int, inputs: int, outputs: int, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """One linear map, on the packed weight whichever way is chosen."""
    torch.manual_seed(0)
    plain = nn.Linear(inputs, outputs, dtype=dtype)
    fast = copy.deepcopy(plain)
    rg.accelerate(fast)
    x = torch.randn(rows, inputs, dtype=dtype)
    flops = 2 * rows * inputs * outputs
    calls = max(1, min(200, round(5e7 / flops)))
    exact = copy.deepcopy(plain).double()(x.double())
    weight = fast._packed(dtype, keep=False)

    def repeat(run: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        return lambda: [run(x) for _ in range(calls)][-1]

    before, after = race(repeat(plain), repeat(lambda x: FastLinear._multiply(fast, x, weight, dtype)), repeats)
    fast(x)
    return {
        "case": f"linear map, {rows} x {inputs} x {outputs}, {dtype}: before / after, packed",
        "unit": "times",
        "value": gain(before, after),
        "bar": None,
        "gflop_a_second": {
            name: round(1e-6 * calls * flops / statistics.median(times), 1)
            for name, times in (("plain", before), ("packed", after))
        },
        "chosen": "packed" if fast._packs else "plain",
        "error": worst(fast(x), exact),
        "error_before": worst(plain(x), exact),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="try the script out, in less than a minute")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="all cores by default")
    given = parser.parse_args()
    quick = given.quick
    torch.set_num_threads(given.threads)
    with torch.no_grad():
        cases = [bert(dtype, 2 if quick else 11) for dtype in BARS]
        cases += [
            linear(rows, *shape, dtype, 3 if quick else 9)
            for dtype in BARS
            for shape in SHAPES[: 1 if quick else None]
            for rows in ROWS
        ]
    write("accelerate", cases, quick=quick)


if __name__ == "__main__":
    main()
