"""Is the native backend as fast, and as small, as it should be: against PyTorch, against peers and against itself?

Every case checks its answer first. Where the other side is regard's own dense attention, or a pattern or a summary that
nobody else computes, the answer is checked against the reference backend.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from attention_race import (
    Case,
    Inputs,
    Match,
    Side,
    Wrong,
    additive_loops,
    agree,
    broadcasting,
    entmax_dense,
    faster,
    fastest_product,
    flex_windows,
    local_windows,
    normal,
    race,
    raced,
    reference,
    regard,
    sdpa,
    slower,
)
from common import Peak, fresh, replaced, write
from torch import Tensor

import regard as rg
from regard.attention.patterns.pattern import Pattern

HEADS, DIM = 8, 64
BIT16 = torch.bfloat16
WAYS = ("forward", "forward and backward")
SHRINK = 16  # how many times fewer tokens --quick takes
MIB = 2**20


def against_sdpa(backward: bool, causal: bool, sizes: tuple[int, ...], **more: Any) -> Match:
    inputs = normal(*sizes, **more)
    leaves = inputs if backward else ()
    ours, ran = regard(inputs, leaves, **({"pattern": rg.Causal()} if causal else {}))
    return Match(ours=ours, other=Side(sdpa(inputs, causal=causal), leaves), backend=ran, inputs=inputs)


def against_own(backward: bool, sizes: tuple[int, ...], *, groups: int | None = None, **values: Any) -> Match:
    """Something special against the plain dense attention of the same sizes, of as many key heads as query heads."""
    inputs = normal(*sizes, groups=groups)
    parameters = [field.tensor for x in values.values() for field in getattr(x, "tensor_fields", ())]
    trained = tuple(x.requires_grad_() for x in parameters if x.is_floating_point()) if backward else ()
    leaves = (*inputs, *trained) if backward else ()
    ours, ran = regard(inputs, leaves, **values)
    plain = normal(*sizes) if groups else inputs
    other, _ = regard(plain, plain if backward else ())
    return Match(ours=ours, other=other, exact=reference(inputs, leaves, **values), backend=ran, inputs=inputs)


def dense_cases(shrink: int) -> Iterator[Case]:
    for n in (512, 1024, 4096):
        sizes = (1, HEADS, n // shrink, DIM)
        yield faster(f"dense, {n:,} tokens, forward: SDPA", 2.3, 3.0, partial(against_sdpa, False, False, sizes))
    sizes = (8, 12, 128 // shrink, DIM)
    make = partial(against_sdpa, False, False, sizes)
    yield faster("dense, 8 x 12 heads x 128 tokens, forward: SDPA", 1.6, 2.5, make)
    sizes = (1, HEADS, 4096 // shrink, DIM)
    yield faster("causal, 4,096 tokens, forward: SDPA", 2.3, 3.0, partial(against_sdpa, False, True, sizes))
    for name, causal in (("dense", False), ("causal", True)):
        for n in (1024, 4096):
            make = partial(against_sdpa, True, causal, (1, HEADS, n // shrink, DIM))
            yield faster(f"{name}, {n:,} tokens, forward and backward: SDPA", 1.8, 2.5, make)
    for way, bar, aim in zip(WAYS, (2.5, 2.0), (4.0, 3.0), strict=True):
        for n in (1024, 4096):
            make = partial(against_sdpa, way != "forward", False, (1, HEADS, n // shrink, DIM), dtype=BIT16)
            yield faster(f"bfloat16, dense, {n:,} tokens, {way}: SDPA", bar, aim, make)
    for dim in (32, 80, 96, 128, 256):
        make = partial(against_sdpa, False, False, (1, HEADS, 1024 // shrink, dim))
        yield faster(f"heads of {dim}, 1,024 tokens, forward: SDPA", 1.8, 2.5, make)
    for n, bar, aim in ((64, 0.7, 1.0), (2048, 1.3, 1.6), (16384, 1.3, 1.6)):
        make = partial(against_sdpa, False, False, (1, HEADS, 1, DIM), keys=n // shrink)
        yield faster(f"one query, {n:,} keys: SDPA", bar, aim, make)


def window_cases(shrink: int) -> Iterator[Case]:
    length, left = 4096 // shrink, 256 // shrink

    def make(backward: bool, peer: str) -> Match:
        inputs = normal(1, HEADS, length, DIM)
        leaves = inputs if backward else ()
        ours, ran = regard(inputs, leaves, pattern=rg.Causal() & rg.SlidingWindow(left=left))
        other = flex_windows(inputs, left) if peer == "flex" else local_windows(inputs, left, leaves)
        return Match(ours=ours, other=other, backend=ran, inputs=inputs)

    title = "causal window of 256 over 4,096 tokens"
    yield faster(f"{title}, forward: compiled FlexAttention", 3.0, 4.0, partial(make, False, "flex"))
    for way, bar, aim in zip(WAYS, (12.0, 8.0), (16.0, 12.0), strict=True):
        yield faster(f"{title}, {way}: local-attention", bar, aim, partial(make, way != "forward", "local"))


def sparse_patterns(length: int, shrink: int) -> Iterator[tuple[str, Pattern]]:
    side, blocks = 192 // shrink, length // 64
    window, drawn = rg.SlidingWindow(left=side, right=side), rg.RandomBlocks(seed=0, length=length)
    yield "BigBird", window | rg.GlobalTokens(range(128 // shrink)) | drawn
    for dilation in (2, 4):
        yield f"dilated by {dilation}", rg.Dilated(dilation, left=128 // shrink, right=128 // shrink)
    random = torch.Generator().manual_seed(0)
    cuts = torch.randint(1, length, (11,), generator=random).sort().values
    yield "12 documents", rg.Documents(torch.searchsorted(cuts, torch.arange(length), right=True)[None])
    for p in (0.1, 0.25, 0.5):
        layout = torch.rand(blocks, blocks, generator=random) < p
        yield f"block-sparse, about {p} of the blocks", rg.BlockSparse(layout | torch.eye(blocks, dtype=torch.bool), 64)


def pattern_cases(shrink: int) -> Iterator[Case]:
    length = 4096 // shrink

    def measure(pattern: Pattern, backward: bool, *, quick: bool) -> dict[str, Any]:
        make = partial(against_own, backward, (1, HEADS, length, DIM), pattern=pattern)
        p = pattern.density(length, length)
        bar = None if backward else round(1.25 * p + 0.02, 4)
        return {**raced(make, slower=True, quick=quick), "density": p, "bar": bar, "aim": round(p, 4)}

    for name, pattern in sparse_patterns(length, shrink):
        for way in WAYS:
            title = f"{name}, 4,096 tokens, {way}: own dense"
            yield Case(title, "x its time", None, None, partial(measure, pattern, way != "forward"))


def special_cases(shrink: int) -> Iterator[Case]:
    length = 1024 // shrink
    lengths = torch.tensor([length, length - length // 79, length - length // 43, length - length // 28])
    random = torch.Generator().manual_seed(0)
    table, sink = torch.randn(32, HEADS, generator=random), torch.randn(HEADS, generator=random)
    for name, batch, values in (
        ("T5 bias", 1, {"bias": rg.RelativeBias(table)}),
        ("ALiBi", 1, {"bias": rg.ALiBi.for_heads(HEADS)}),
        ("softcap", 1, {"score": rg.Dot(softcap=50.0)}),
        ("key lengths of 96% to 100%, 4 sequences", 4, {"pattern": rg.KeyLengths(lengths)}),
        ("sinks", 1, {"normalizer": rg.Softmax(sink=sink)}),
    ):
        for way, bar in zip(WAYS, (1.25, None), strict=True):
            make = partial(against_own, way != "forward", (batch, HEADS, length, DIM), **values)
            yield slower(f"{name}, 1,024 tokens, {way}: own dense", bar, 1.1, make)
    for way, bar in zip(WAYS, (1.05, None), strict=True):
        make = partial(against_own, way != "forward", (1, HEADS, length, DIM), groups=HEADS // 4)
        yield slower(f"grouped queries 4:1, 1,024 tokens, {way}: own multi-head", bar, 0.95, make)


def summary_cases(shrink: int) -> Iterator[Case]:
    sums = {"log_sum_exp": True, "entropy": True, "expected_key": True, "key_mass": True, "grid": (16, 16)}

    def check(inputs: Inputs, summary: rg.Summary) -> float:
        output, result = rg.attend(*inputs, summary=summary, backend="native")
        asked = {f.name: getattr(summary, f.name) for f in fields(summary)}
        exact, known = rg.attend(*inputs, summary=rg.Summary(**{**asked, "weights": True}), backend="reference")
        names = [f.name for f in fields(result) if getattr(result, f.name) is not None and f.name != "top_keys"]
        error = agree([output, *(getattr(result, n) for n in names)], [exact, *(getattr(known, n) for n in names)])
        if result.top_keys is not None:  # equal weights may come in either order
            error = max(error, agree([known.weights.gather(-1, result.top_keys)], [result.top_weights]))
        return error

    def make(asked: dict[str, Any]) -> Match:
        inputs, summary = normal(1, HEADS, 1024 // shrink, DIM), rg.Summary(**asked)
        ours, ran = regard(inputs, summary=summary)
        plain, _ = regard(inputs)
        return Match(ours=ours, other=plain, check=partial(check, inputs, summary), backend=ran, inputs=inputs)

    for name, bar, aim, asked in (
        ("every summary but top-k", 2.0, 1.5, {**sums, "weights": True}),
        ("every summary but top-k and the weights", 2.0, 1.5, sums),
        ("every summary but the weights, top-8", 3.0, 2.0, {**sums, "top_k": 8}),
    ):
        yield slower(f"{name}, dense 1,024 tokens: own plain", bar, aim, partial(make, asked))


def additive_inputs(length: int) -> tuple[tuple[Tensor, ...], Tensor]:
    return normal(1, HEADS, length, 256), torch.randn(256).requires_grad_()


def additive_cases(shrink: int) -> Iterator[Case]:
    def make(backward: bool, peer: str) -> Match:
        inputs, vector = additive_inputs(512 // shrink)
        leaves = (*inputs, vector) if backward else ()
        ours, ran = regard(inputs, leaves, score=rg.Additive(vector))
        whole = Side(lambda: broadcasting(*inputs, vector), leaves)
        loops = additive_loops(inputs, vector, leaves)
        # Broadcasting adds up 2^21 numbers for the vector's gradient, and is off by 3e-5 there: ten times our error.
        exact = next(iter(loops.values()))
        return Match(ours=ours, other=loops if peer == "loop" else whole, exact=exact, backend=ran, inputs=inputs)

    title = "additive, 8 x 512 x 512 x 256"
    for peer, name, bars, aims in (
        ("broadcasting", "broadcasting", (15.0, 8.0), (25.0, 15.0)),
        ("loop", "a chunked loop at its best block", (5.0, 4.0), (8.0, 6.0)),
    ):
        for way, bar, aim in zip(WAYS, bars, aims, strict=True):
            yield faster(f"{title}, {way}: {name}", bar, aim, partial(make, way != "forward", peer))
    yield Case(
        f"{title}, forward and backward, memory beyond inputs and results: broadcasting",
        "times less", 30.0, None, additive_memory,
    )  # fmt: skip


def entmax_cases(shrink: int) -> Iterator[Case]:
    def make(normalizer: rg.Sparsemax | rg.Entmax, backward: bool) -> Match:
        inputs = normal(1, HEADS, 512 // shrink, DIM)
        leaves = inputs if backward else ()
        ours, ran = regard(inputs, leaves, normalizer=normalizer)
        others = entmax_dense("sparsemax" if isinstance(normalizer, rg.Sparsemax) else "entmax15", inputs, leaves)
        return Match(ours=ours, other=others, backend=ran, inputs=inputs)

    for name, normalizer in (("sparsemax", rg.Sparsemax()), ("entmax-1.5", rg.Entmax(1.5))):
        for way, bar, aim in zip(WAYS, (None, 8.0), (None, 15.0), strict=True):
            backward = way != "forward"
            yield faster(f"{name}, 8 heads x 512 tokens, {way}: entmax", bar, aim, partial(make, normalizer, backward))
    for name, normalizer in (
        ("sparsemax", rg.Sparsemax()),
        ("entmax-1.5", rg.Entmax(1.5)),
        ("entmax-1.2", rg.Entmax(1.2)),
    ):
        for way in WAYS:
            run = partial(against_own, way != "forward", (1, HEADS, 2048 // shrink, DIM), normalizer=normalizer)
            yield slower(f"{name}, 2,048 tokens, {way}: own softmax", None, None, run)


def peak_cases(shrink: int) -> Iterator[Case]:
    """The share of what the machine multiplies matrices at, and what a second thread gives."""

    def share(dtype: torch.dtype, threads: int, *, quick: bool) -> dict[str, Any]:
        all_threads = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                inputs = normal(1, HEADS, 4096 // shrink, DIM, dtype=dtype)
                ours, ran = regard(inputs)
                error = agree([ours.attend()], [sdpa(inputs)()])
                best, product, count = fastest_product(dtype, (128,) if quick else (1024, 2048))
                timed = race(ours.attend, product, quick=quick)
        finally:
            torch.set_num_threads(all_threads)
        operations = {"regard": 4 * HEADS * (4096 // shrink) ** 2 * DIM, "other": count}
        return {
            "value": round(timed.pop("ratio") * operations["regard"] / count, 3),
            "shape": [list(x.shape) for x in inputs],
            "dtype": str(dtype).removeprefix("torch."),
            "backend": ran,
            "setting": best,
            "threads": threads,
            "gflop_a_second": {
                side: round(1e-6 * n / timed["times"][side]["median_ms"], 1) for side, n in operations.items()
            },
            **timed,
            "error": error,
        }

    def more_threads(*, quick: bool) -> dict[str, Any]:
        both = torch.get_num_threads()

        def make() -> Match:
            inputs = normal(1, HEADS, 4096 // shrink, DIM)
            ours, ran = regard(inputs)

            def alone() -> Tensor:
                torch.set_num_threads(1)
                output: Tensor = ours.attend()
                torch.set_num_threads(both)
                return output

            return Match(ours=ours, other=Side(alone), backend=ran, inputs=inputs)

        return raced(make, slower=False, quick=quick)

    threads = torch.get_num_threads()
    for dtype, aim in ((torch.float32, 0.85), (BIT16, 0.5)):
        name = str(dtype).removeprefix("torch.")
        for n in sorted({1, threads}, reverse=True):
            title = f"{name}, dense, 4,096 tokens, forward, threads: {n}"
            yield Case(f"{title}; of the fastest matrix product", "of its rate", None, aim, partial(share, dtype, n))
    if threads > 1:
        title = f"dense, 4,096 tokens, forward: {threads} threads against one"
        yield Case(title, "times as fast", None, None, more_threads)


def memory_cases(shrink: int) -> Iterator[Case]:
    def measure(*, quick: bool) -> dict[str, Any]:
        inputs, incoming = normal(1, 2, 1280, DIM), torch.randn(1, 2, 1280, DIM)
        values = {"pattern": rg.Causal() & rg.SlidingWindow(left=512)}
        ours, ran = regard(inputs, inputs, **values)
        error = agree(ours.answer(incoming), reference(inputs, inputs, **values).answer(incoming))
        found = fresh(__file__, "--memory", "window", *(["--quick"] if quick else []))
        mib = {name: round(found[name] / MIB, 1) for name in ("peak", "kept")}
        value = round(found["peak"] / found["kept"], 3)
        return {"value": value, "mib": mib, "shape": found["shape"], "dtype": "float32", "backend": ran, "error": error}

    yield Case(
        "causal window of 512 over 65,536 tokens, forward and backward: memory of q, k, v, output and their gradients",
        "x its memory", 1.3, 1.1, measure,
    )  # fmt: skip


def additive_memory(*, quick: bool) -> dict[str, Any]:
    inputs, vector = additive_inputs(64)
    incoming, leaves = torch.randn(1, HEADS, 64, 256), (*inputs, vector)
    ours, _ = regard(inputs, leaves, score=rg.Additive(vector))
    error = agree(ours.answer(incoming), Side(lambda: broadcasting(*inputs, vector), leaves).answer(incoming))
    more = ["--quick"] if quick else []
    found = {side: fresh(__file__, "--memory", f"additive {side}", *more) for side in ("regard", "broadcasting")}
    beyond = {side: x["peak"] - x["kept"] for side, x in found.items()}
    return {
        "value": round(beyond["broadcasting"] / max(beyond["regard"], 1), 2),
        "mib": {side: round(x / MIB, 1) for side, x in beyond.items()},
        "shape": found["regard"]["shape"],
        "dtype": "float32",
        "backend": found["regard"]["backend"],
        "error": error,
    }


def weigh(name: str, shrink: int) -> None:
    """Forward and backward once, the first thing that this process computes; prints the bytes of peak and results.

    The window's inputs count as results: they are made where the peak is watched.
    """
    torch.manual_seed(0)
    inputs, vector, ran = (), torch.randn(256).requires_grad_(), ""
    if name != "window":
        inputs, vector = additive_inputs(512 // shrink)
    with Peak() as peak:
        if name == "window":
            kept = inputs = normal(1, HEADS, 65536 // shrink, DIM)
            side, ran = regard(inputs, inputs, pattern=rg.Causal() & rg.SlidingWindow(left=512 // shrink))
        elif name == "additive regard":
            kept, (side, ran) = (), regard(inputs, (*inputs, vector), score=rg.Additive(vector))
        else:
            kept, side = (), Side(lambda: broadcasting(*inputs, vector), (*inputs, vector))
        incoming = torch.ones(inputs[0].shape)
        kept = (*kept, incoming, *side.answer(incoming))
    size = sum(x.numel() * x.element_size() for x in kept)
    shape = [list(x.shape) for x in inputs]
    print(json.dumps({"peak": peak.bytes, "kept": size, "shape": shape, "backend": ran}))


GROUPS = (
    dense_cases, window_cases, pattern_cases, special_cases, summary_cases, additive_cases, entmax_cases, peak_cases,
    memory_cases,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="try the script out, on tiny sizes")
    parser.add_argument(
        "--only", metavar="WORD", default="", help="the cases whose name holds it; they replace what is written of them"
    )
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    given = parser.parse_args()
    shrink = SHRINK if given.quick else 1
    if given.memory:
        weigh(given.memory, shrink)
    else:
        measure_all([case for group in GROUPS for case in group(shrink) if given.only in case.name], given)


def measure_all(cases: list[Case], given: argparse.Namespace) -> None:
    """A wrong answer is told at once, and the others are measured all the same; but then nothing is written."""
    found, wrong = [], []
    for case in cases:
        try:
            found.append(case.run(quick=given.quick))
        except Wrong as error:
            wrong.append(f"{case.name}: {error}")
            print(f"wrong: {wrong[-1]}", file=sys.stderr, flush=True)
    if not wrong:
        write("kernels", replaced("kernels", found) if given.only and not given.quick else found, quick=given.quick)
        return
    for line in found:
        print(json.dumps(line))
    raise SystemExit("\n".join(["wrong answers, nothing is written:", *wrong]) if wrong else 0)


if __name__ == "__main__":
    main()
