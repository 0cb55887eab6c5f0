"""What does the operator itself cost: checks and plan of a call, and the schedule of a long pattern?"""

import statistics
import time
from collections.abc import Callable

import torch
from common import spread, worst, write
from torch.nn import functional

import regard as rg
from regard.attention.attend import PLAIN
from regard.attention.engine.call import make_call
from regard.attention.patterns.pattern import Pattern, build_schedule
from regard.attention.plan import BACKENDS

CALLS = 4000


def call_times(runs: dict[str, Callable[[], object]]) -> tuple[dict[str, dict[str, float]], float]:
    """Milliseconds of one call of each; and the median difference of neighbors, first minus second.

    The order turns each time: going second costs a function compared with itself up to 3 microseconds less.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    turns = list(runs.items())
    for _ in range(CALLS):
        turns.reverse()
        for name, run in turns:
            start = time.perf_counter_ns()
            run()
            times[name].append(1e-6 * (time.perf_counter_ns() - start))
    first, second = times.values()
    difference = statistics.median(x - y for x, y in zip(first, second, strict=True))
    return {name: spread(t) for name, t in times.items()}, difference


def built(pattern: Pattern, length: int) -> list[float]:
    """Milliseconds to build a schedule of blocks of 128, without the cache."""
    times = []
    for _ in range(21):
        start = time.perf_counter()
        build_schedule(pattern, length, length, 128, (0, 0), 0)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # microseconds of Python: a second thread would only add noise
    query, key, value = (torch.randn(1, 8, 16, 64) for _ in range(3))
    error = worst(rg.attend(query, key, value), functional.scaled_dot_product_attention(query, key, value))
    cases = []
    for title, values, spec in (
        ("all defaults", {}, PLAIN),
        ("a causal window", {"pattern": (p := rg.Causal() & rg.SlidingWindow(left=4))}, rg.AttentionSpec(pattern=p)),
    ):
        call = make_call(query, key, value, spec, None, None, 0, None)
        for name in ("sdpa", "chunked"):
            backend = BACKENDS[name]
            timed, extra = call_times(
                {
                    "attend": lambda values=values, name=name: rg.attend(query, key, value, **values, backend=name),
                    "the backend's own call": lambda backend=backend, call=call: backend.run(call),
                }
            )
            cases.append(
                {
                    "case": f"overhead of attend over {name}'s own call, {title}",
                    "shape": list(query.shape),
                    "dtype": "float32",
                    "unit": "microseconds",
                    "value": round(1e3 * extra, 2),
                    "bar": 15.0,
                    "times": timed,
                    "error": error,
                }
            )
    for title, pattern in (
        ("causal window of 256", rg.Causal() & rg.SlidingWindow(left=256)),
        ("BigBird", rg.SlidingWindow(192, 192) | rg.GlobalTokens(range(128)) | rg.RandomBlocks(seed=0, length=65536)),
    ):
        times = built(pattern, 65536)
        if pattern.schedule(65536, 65536) is not pattern.schedule(65536, 65536):
            raise SystemExit("the schedule is not cached")
        cases.append(
            {
                "case": f"schedule of 65,536 tokens, {title}",
                "unit": "milliseconds",
                "value": round(statistics.median(times), 3),
                "bar": 5.0,
                "times": spread(times),
            }
        )
    write("overhead", cases)


if __name__ == "__main__":
    main()
