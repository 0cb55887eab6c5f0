"""Which peak learning rate does each architecture want, and what does it reach with it?

Small models of equal width on 250,000 target tokens, one seed: as `regard train` makes them, but for their size. With
--default, models and batches of the sizes that `regard train` takes where it is given none, for as many steps as ten
minutes on two cores have. The perplexities are of this data and length only. Runs that --out holds are not repeated.
"""

import argparse
import json
import math
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import folder_of_runs, kept, processor_minutes, replaced, write

from regard.train.options import TrainOptions

SIZES: dict[str, list[str]] = {
    "rnn": ["--model.embed_dim", "128", "--model.hidden_dim", "192", "--model.align_dim", "128"],
    "luong": ["--model.embed_dim", "128", "--model.hidden_dim", "192"],
    "convs2s": ["--model.embed_dim", "128", "--model.hidden_dim", "128"],
    "transformer": ["--size", "tiny"],
}
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
FIRST = {"rnn": 4e-3, "luong": 8e-3, "convs2s": 2e-3, "transformer": 2e-3}
TOKENS = 250_000
DEFAULT_STEPS = 500
MAX_TOKENS, VOCABULARY = 16, 2000


def run(model: str, rate: float, steps: int, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train a model, and tell the perplexity of held-out pairs."""
    out = folder / name_of(model, rate, given)
    small = [
        *(*SIZES[model], "--max-tokens", str(MAX_TOKENS), "--vocab-size", str(VOCABULARY)),
        *("--batch-tokens", str(given.batch), "--dropout", "0.1"),
    ]
    arguments = [
        *("train", f"{given.pairs}/train.tsv.gz", "--valid", f"{given.pairs}/valid.tsv.gz", "--out", str(out)),
        *("--model", model, *([] if given.default else small), "--steps", str(steps), "--evaluate-every", str(steps)),
        *("--learning-rate", str(rate), "--threads", "1"),
    ]
    minutes = processor_minutes(arguments)
    training = json.loads((out / "config.json").read_text(encoding="utf-8"))["training"]
    return {"perplexity": math.exp(training["valid_loss"]), "minutes": round(minutes, 2)}


def name_of(model: str, rate: float, given: argparse.Namespace) -> str:
    """The name of a run's folder."""
    return f"{'default-' if given.default else ''}{model}-{rate:g}"


def cases(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Rates of each model, from a likely one on, until the best has worse neighbors."""
    steps = 4 if given.quick else DEFAULT_STEPS if given.default else round(TOKENS / (given.batch * 0.8))
    for model in given.models:
        found: dict[float, float] = {}
        place = RATES.index(FIRST[model])
        tried = [place, place - 1, place + 1]
        while tried:
            at = tried.pop(0)
            rate = RATES[at]
            if rate in found:
                continue
            result = kept(
                folder / f"{name_of(model, rate, given)}.json", partial(run, model, rate, steps, given, folder)
            )
            found[rate] = result["perplexity"]
            case = f"{model}{', default sizes' if given.default else ''}, learning rate {rate:g}"
            batch = TrainOptions(files=("-",)).batch_tokens if given.default else given.batch
            about = {"bar": None, "steps": steps, "batch_tokens": batch, "minutes": result["minutes"]}
            yield {"case": case, "unit": "perplexity", "value": round(result["perplexity"], 2), **about}
            best = RATES.index(min(found, key=found.__getitem__))
            if not tried:
                tried = [x for x in (best - 1, best + 1) if 0 <= x < len(RATES) and RATES[x] not in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", default=os.environ.get("REGARD_PAIRS"), help="folder of train and valid.tsv.gz")
    parser.add_argument("--out", help="folder of the runs, to keep them and go on from them")
    parser.add_argument("--models", nargs="+", default=list(SIZES))
    parser.add_argument("--batch", type=int, default=512, help="tokens of a batch")
    parser.add_argument("--default", action="store_true", help="models and batches of default sizes")
    parser.add_argument("--quick", action="store_true", help="try the script out")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.pairs is None:
        parser.error("--pairs FOLDER, or $REGARD_PAIRS: pairs as train and valid.tsv.gz")
    with folder_of_runs(given.out) as folder:
        write("recipes", replaced("recipes", cases(given, folder)), quick=given.quick)


if __name__ == "__main__":
    main()
