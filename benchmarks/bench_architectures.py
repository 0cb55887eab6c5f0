"""Which architecture learns most from the same number of tokens, at the same number of parameters, and how fast?

Each run is kept in results/architectures.jsonl as soon as it ends: the same command started again goes on. What a model
learns does not hang on the speed of its device, so the runs may be made on a GPU, with --learn; the speed is that of
this processor, the architectures in turn.
"""

import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from architectures import (
    ARCHITECTURES,
    DROPOUT,
    TOLERANCE,
    Runs,
    begun,
    matched,
    parameters,
    train,
)
from common import RESULTS, write
from translation import VOCABULARY, corpus, options, prepared, read, spread_of

from regard.tasks.encoder_decoder import vocabulary_of
from regard.tasks.translate import Translate

TURNS, STEPS = 3, 4  # of the speed: how often each architecture trains, and on how many batches


def learn(runs: Runs, task: Translate, given: Any, name: str, seed: int, rate: float) -> None:
    """A run, whose result is kept."""
    config, target = matched(name, vocabulary_of(task.tokenizer), given.size)
    print(f"{name}, seed {seed}, learning rate {rate}", flush=True)
    settings = {"tokens": given.tokens, "seed": seed, "rate": rate, "batch_tokens": batch(given)}
    trainer, measured = train(name, config, task, **settings, device=given.device)
    loss = trainer.evaluate()["loss"]
    told = {"perplexity": math.exp(loss), "held_out_loss": loss, "parameters": parameters(trainer.module)}
    sizes = {n: x for n, x in vars(config).items() if isinstance(x, int | str) and not isinstance(x, bool)}
    runs.add(name, seed, **told, rate=rate, parameters_to_match=target, sizes=sizes, **measured)
    print(f"  perplexity {told['perplexity']:.2f}, {measured['tokens_a_second']:,.0f} tokens/s", flush=True)


def spread(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation and every value."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "standard_deviation": deviation, "values": values}


def speeds(task: Translate, given: Any) -> dict[str, list[float]]:
    """Target tokens a second of training, of each architecture in turn: the same batches at a learning rate of 0."""
    told = vocabulary_of(task.tokenizer)
    configs = {name: matched(name, told, given.size)[0] for name in given.models}
    made = {
        name: begun(task, config, seed=1, batch_tokens=batch(given), device=torch.device("cpu"))
        for name, config in configs.items()
    }
    found: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(1 + (1 if given.quick else TURNS)):
        for name, trainer in made.items():
            batches = trainer.sampler.pool(0, 0)[: 1 if given.quick else STEPS]
            start = time.perf_counter()
            for rows in batches:
                trainer.step([rows], 1, 0.0)
            if turn:  # the first is to warm up
                found[name].append(sum(map(task.units, batches)) / (time.perf_counter() - start))
    return found


def cases_of(runs: Runs, rates: dict[str, list[float]], told: dict[str, Any]) -> list[dict[str, Any]]:
    """A case of perplexity and one of speed for each architecture, and one of how well parameters match."""
    cases: list[dict[str, Any]] = []
    for name in ARCHITECTURES:
        best = runs.best(name)
        if not best:
            continue
        perplexities = spread([run["perplexity"] for run in best])
        devices = sorted({run["device"] for run in best})
        shared = {"bar": None, "parameters": best[0]["parameters"], "sizes": best[0]["sizes"], **told}
        what = f"{name}, {told['tokens']:,} target tokens, {told['data']}"
        value = round(perplexities["mean"], 3)
        cases.append(
            {
                "case": f"held-out perplexity, {what}, learned on {' and '.join(devices)}",
                "unit": "perplexity",
                "value": value,
                "spread": perplexities,
                "learning_rate": best[0]["rate"],
                "by_rate": runs.perplexities(name),
                **shared,
            }
        )
        if name in rates:
            unit, value = "target tokens a second", round(statistics.median(rates[name]))
            speed = {"value": value, "spread": spread_of(rates[name])}
            cases.append({"case": f"training, {name}, {told['data']}", "unit": unit, **speed, **shared})
    counts = {run["name"]: run["parameters"] for run in runs.found()}
    apart = max(abs(run["parameters"] / run["parameters_to_match"] - 1) for run in runs.found())
    case = f"architectures' parameters, embeddings aside, against the Transformer's, {told['data']}"
    return [*cases, {"case": case, "unit": "apart", "value": round(apart, 4), "bar": TOLERANCE, "counts": counts}]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--tokens", type=int, default=2_000_000, help="target tokens of a run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--models", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--size", default="small", help="of the Transformer that the others match")
    parser.add_argument("--learn", action="store_true", help="only make the runs that are missing")
    given = read(parser)
    if given.quick:
        given.tokens, given.seeds, given.size = 1, [1], "tiny"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = corpus(given, folder)
        task = prepared(files, folder, vocab_size=500 if given.quick else VOCABULARY)
        setting = {
            "data": files.name, "tokens": given.tokens, "size": given.size, "dropout": DROPOUT,
            "vocabulary": task.tokenizer.size,
        }  # fmt: skip
        runs = Runs((folder if given.quick else RESULTS) / "architectures.jsonl", setting)
        # Seed by seed, so that what is there when it is stopped can be compared.
        for model, seed, rate in runs.missing(given.models, given.seeds):
            learn(runs, task, given, model, seed, rate)
        if not given.learn:
            write("architectures", cases_of(runs, speeds(task, given), setting), quick=given.quick)


def batch(given: Any) -> int:
    """Tokens of a batch, padding counted."""
    return 512 if given.quick else 2048


if __name__ == "__main__":
    main()
