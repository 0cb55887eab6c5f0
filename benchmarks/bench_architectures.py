"""Which architecture learns most from the same number of tokens, at the same number of parameters, and how fast?

Each run is kept in results/architectures.jsonl as soon as it ends: the same command started again goes on.
"""

import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

from architectures import ARCHITECTURES, DROPOUT, RATE, TOLERANCE, Runs, matched, parameters, train
from common import RESULTS, write
from translation import VOCABULARY, corpus, options, prepared, read, vocabulary


def spread(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation and every value."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "standard_deviation": deviation, "values": values}


def cases_of(found: list[dict[str, Any]], told: dict[str, Any]) -> list[dict[str, Any]]:
    """A case of perplexity and one of speed for each architecture, and one of how well parameters match."""
    cases: list[dict[str, Any]] = []
    for name in ARCHITECTURES:
        runs = [run for run in found if run["name"] == name]
        if not runs:
            continue
        perplexities = spread([run["perplexity"] for run in runs])
        rates = spread([run["tokens_a_second"] for run in runs])
        shared = {"bar": None, "parameters": runs[0]["parameters"], "sizes": runs[0]["sizes"], **told}
        what = f"{name}, {told['tokens']:,} target tokens, {told['data']}"
        value = round(perplexities["mean"], 3)
        cases.append(
            {
                "case": f"held-out perplexity, {what}",
                "unit": "perplexity",
                "value": value,
                "spread": perplexities,
                **shared,
            }
        )
        value = round(rates["mean"])
        cases.append(
            {"case": f"training, {what}", "unit": "target tokens a second", "value": value, "spread": rates, **shared}
        )
    counts = {run["name"]: run["parameters"] for run in found}
    apart = max(abs(run["parameters"] / run["parameters_to_match"] - 1) for run in found)
    case = f"architectures' parameters, embeddings aside, against the Transformer's, {told['data']}"
    return [*cases, {"case": case, "unit": "apart", "value": round(apart, 4), "bar": TOLERANCE, "counts": counts}]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--tokens", type=int, default=2_000_000, help="target tokens of a run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--models", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--size", default="small", help="of the Transformer that the others match")
    given = read(parser)
    if given.quick:
        given.tokens, given.seeds, given.size = 1, [1], "tiny"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = corpus(given, folder)
        data = prepared(files, folder, vocab_size=500 if given.quick else VOCABULARY)
        setting = {
            "data": files.name, "tokens": given.tokens, "size": given.size, "threads": given.threads,
            "learning_rate": RATE, "dropout": DROPOUT, "vocabulary": data.tokenizer.size,
        }  # fmt: skip
        runs = Runs((folder if given.quick else RESULTS) / "architectures.jsonl", setting)
        # Seed by seed, so that what is there when it is stopped can be compared.
        for model, seed in runs.missing([(model, seed) for seed in given.seeds for model in given.models]):
            config, target = matched(model, vocabulary(data.tokenizer), given.size)
            print(f"{model}, seed {seed}", flush=True)
            trainer, measured = train(config, data.train, tokens=given.tokens, seed=seed, batch_tokens=batch(given))
            loss = trainer.evaluate(data.valid)
            told = {"perplexity": math.exp(loss), "held_out_loss": loss, "parameters": parameters(trainer.module)}
            told["parameters_to_match"] = target
            sizes = {n: x for n, x in vars(config).items() if isinstance(x, int | str) and not isinstance(x, bool)}
            runs.add(model, seed, **told, sizes=sizes, **measured)
            print(f"  perplexity {told['perplexity']:.2f}, {measured['tokens_a_second']:,.0f} tokens/s", flush=True)
        write("architectures", cases_of(runs.found(), setting), quick=given.quick)


def batch(given: Any) -> int:
    """Tokens of a batch, padding counted."""
    return 512 if given.quick else 2048


if __name__ == "__main__":
    main()
