"""What recording costs: time over a model's own fused forward pass, and memory above it; and pages and pictures.

Maps, entropy, expected keys, key mass and the eight largest weights of all heads are recorded. Outputs are checked to
be the same to the last bit.
"""

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import lens_pages
import torch
import transformers
from common import Peak, alternate, fresh, ratio, replaced, write

import regard as rg

MIB = 2**20
LONG = {"layers": 2, "heads": 2, "width": 64, "tokens": 100_000, "grid": 256}


def bert() -> tuple[Any, dict[str, Any]]:
    """BERT-base with random weights, and 512 tokens."""
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig()).eval()
    return model, {"input_ids": torch.randint(0, 30_000, (1, 512))}


def gpt2(tokens: int, **sizes: int) -> tuple[Any, dict[str, Any]]:
    """A model of GPT-2's shape with random weights, and tokens."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_positions=tokens, **sizes)
    model = transformers.GPT2Model(config).eval()
    return model, {"input_ids": torch.randint(0, 50_000, (1, tokens)), "use_cache": False}


@torch.no_grad()
def overhead(case: str, made: tuple[Any, dict[str, Any]], bar: float, repeats: int) -> dict[str, Any]:
    """Time with the recorder over time without it."""
    model, inputs = made

    def recorded() -> torch.Tensor:
        with rg.record(model):
            return model(**inputs).last_hidden_state

    expected = model(**inputs).last_hidden_state
    if not torch.equal(recorded(), expected):
        raise SystemExit(f"{case}: the recorder changes the output")
    timed = alternate({"plain": lambda: model(**inputs), "recorded": recorded}, repeats)
    value = ratio(timed, "recorded", "plain")
    return {"case": case, "unit": "x", "value": value, "bar": bar, **timed}


@torch.no_grad()
def memory(tokens: int, grid: int, sizes: dict[str, int]) -> dict[str, Any]:
    """Peaks of a plain and of a recorded pass, in MiB above the model, and how long the latter took."""
    torch.set_num_threads(1)
    model, inputs = gpt2(tokens, **sizes)
    with Peak() as plain:
        model(**inputs)
    start = time.perf_counter()
    with Peak() as recorded, rg.record(model, grid=grid) as recording:
        model(**inputs)
    seconds = time.perf_counter() - start
    worst = max(record.error or 0.0 for record in recording.values())
    peaks = {"plain": plain.bytes // MIB, "recorded": recorded.bytes // MIB}
    return {**peaks, "seconds": round(seconds, 1), "heads": sum(x.shape[1] for x in recording.values()), "error": worst}


def cases(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Time and memory."""
    repeats = 3 if given.quick else 9
    yield overhead("recording BERT-base, 512 tokens", bert(), 1.5, repeats)
    shape = {"n_layer": 1} if given.quick else {}
    yield overhead("recording GPT-2's shape, 4,096 tokens", gpt2(4096, **shape), 2.0, 3)
    if given.quick:
        return
    result = fresh(__file__, "--memory", json.dumps([10_000, 64, {}]))
    value = result["recorded"] - result["plain"]
    about = {"unit": "MiB above a plain pass", "value": value, "bar": 1024, **result}
    yield {"case": "recording 144 heads, 10,000 tokens", **about}
    sizes = {"n_layer": LONG["layers"], "n_head": LONG["heads"], "n_embd": LONG["width"]}
    result = fresh(__file__, "--memory", json.dumps([LONG["tokens"], LONG["grid"], sizes]))
    value = result["recorded"] - result["plain"]
    yield {
        "case": "recording 4 heads, 100,000 tokens, grid of 256", "unit": "MiB above a plain pass", "value": value,
        "bar": 2048, **result,
    }  # fmt: skip
    yield from lens_pages.cases()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="try the script out")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("--pages", action="store_true", help="measure pages and pictures only")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if given.memory:
        print(json.dumps(memory(*json.loads(given.memory))))
        return
    torch.set_num_threads(1)
    if given.pages:
        write("lens", replaced("lens", lens_pages.cases()))
    else:
        write("lens", cases(given), quick=given.quick)


if __name__ == "__main__":
    main()
