"""Who can translate long sentences? Bahdanau's figure 2, on dates in a row: the share of right dates by their number.

Each architecture is trained on rows of 1 to 8 dates in many languages, and tested on dates it has not seen, in rows of
up to 12. Each run is kept in results/lengths.jsonl as soon as it ends: the same command started again goes on.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from architectures import ARCHITECTURES, DROPOUT, POST_NORM, SHORT_WARMUP, Runs, matched, parameters, train
from common import RESULTS, write
from translation import Corpus, options, prepared, read

from regard.data.tokenizer import Tokenizer
from regard.decode.generate import generate
from regard.decode.search import Greedy
from regard.models.seq2seq import Seq2Seq
from regard.tasks.dates import BETWEEN, DatePair, concatenated
from regard.tasks.encoder_decoder import vocabulary_of
from regard.tasks.translate import Translate

RATE = 3e-3  # at which all but the Transformer with the norm at the end learn most of pairs of texts
TRAINED, TESTED = range(1, 9), (1, 2, 3, 4, 6, 8, 10, 12)  # dates in a row
SHORT, LONG = 1, 8  # of the trained: how much is lost from one to the other


def data(folder: Path, rows: int) -> Translate:
    """The task of rows of every trained length."""
    files = []
    for part, count in (("train", rows), ("valid", max(8, rows // 50))):
        pairs = [pair for n in TRAINED for pair in concatenated(n, part, count // len(TRAINED))]
        lines = (f"{pair.source}\t{pair.target}\n" for pair in pairs)
        (folder / f"{part}.tsv").write_text("".join(lines), encoding="utf-8")
        files.append(str(folder / f"{part}.tsv"))
    return prepared(Corpus("dates", *files, test=""), folder, vocab_size=1000)


def right(model: Seq2Seq, tokenizer: Tokenizer, pairs: Sequence[DatePair]) -> float:
    """The share of dates that are written as they should be, at their place in the row."""
    sources = tokenizer.encode_batch([pair.source for pair in pairs])
    found = generate(model, sources, search=Greedy())
    said = tokenizer.decode_batch([hypotheses[0].tokens for hypotheses in found])
    hits = total = 0
    for text, pair in zip(said, pairs, strict=True):
        written, expected = text.split(BETWEEN), pair.target.split(BETWEEN)
        hits += sum(x == y for x, y in zip(written, expected, strict=False))
        total += len(expected)
    return hits / total


def learned(model: str, seed: int, rate: float, tokens: int, task: Translate, given: Any) -> dict[str, Any]:
    """An architecture's run: the share of right dates in rows of each length, and what it took."""
    config, _ = matched(model, vocabulary_of(task.tokenizer), given.size)
    print(f"{model}, seed {seed}, learning rate {rate}", flush=True)
    trainer, measured = train(model, config, task, tokens=tokens, seed=seed, rate=rate, device=given.device)
    loss = trainer.evaluate()["loss"]
    scores = {
        str(n): right(trainer.module, task.tokenizer, list(concatenated(n, "test", given.tests)))
        for n in (TESTED[:2] if given.quick else TESTED)
    }
    print(f"  {scores}", flush=True)
    told = {"right": scores, "parameters": parameters(trainer.module), "held_out_loss": loss, "rate": rate}
    return {**told, **measured}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1_500_000], help="target tokens of a run")
    parser.add_argument("--rates", type=float, nargs="+", default=[RATE], help="learning rates")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--models",
        nargs="+",
        choices=ARCHITECTURES,
        default=[x for x in ARCHITECTURES if x not in (POST_NORM, SHORT_WARMUP)],
    )
    parser.add_argument("--size", default="tiny", help="of the Transformer that the others match")
    parser.add_argument("--rows", type=int, default=80_000, help="to train on")
    parser.add_argument("--tests", type=int, default=200, help="rows of each length")
    parser.add_argument("--learn", action="store_true", help="only make the runs that are missing")
    given = read(parser)
    if given.quick:
        given.tokens, given.rows, given.tests = [1], 160, 4
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task, cases = data(folder, given.rows), []
        for tokens in given.tokens:
            setting = {
                "data": "dates", "tokens": tokens, "rows": given.rows, "size": given.size, "tests": given.tests,
                "dropout": DROPOUT, "vocabulary": task.tokenizer.size,
            }  # fmt: skip
            runs = Runs((folder if given.quick else RESULTS) / "lengths.jsonl", setting)
            for model, seed, rate in runs.missing(given.models, given.seeds, given.rates):
                runs.add(model, seed, **learned(model, seed, rate, tokens, task, given))
            cases += cases_of(runs, setting, str(TESTED[1] if given.quick else LONG))
        if not given.learn:
            write("lengths", cases, quick=given.quick)


def cases_of(kept: Runs, told: dict[str, Any], long: str) -> list[dict[str, Any]]:
    """The share of right dates in the longest rows trained on, for each architecture; all lengths stand beside it."""
    cases = []
    for name in ARCHITECTURES:
        if runs := kept.best(name):
            by_length = {n: sum(run["right"][n] for run in runs) / len(runs) for n in runs[0]["right"]}
            case = f"dates right in rows of {long}, {name}, {told['tokens']:,} target tokens"
            shared = {"by_length": by_length, "runs": runs, **told}
            cases.append({"case": case, "unit": "of 1", "value": round(by_length[long], 4), "bar": None, **shared})
    return cases


if __name__ == "__main__":
    main()
