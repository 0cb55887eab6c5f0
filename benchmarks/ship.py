"""Makes the model that the package ships from a run's folder: half precision, scored on test once, with a model card.

    python benchmarks/ship.py runs/en-it --pairs FOLDER      # of train.tsv.gz and test.tsv.gz

The model is chosen on valid, in training. Nothing here goes back into it.
"""

import argparse
from collections.abc import Iterable
from typing import Any

import torch
from common import write

from regard.checkpoints import folder as folders
from regard.checkpoints.shipped import SHIPPED
from regard.data.rows import read_pairs
from regard.tasks.evaluate import Evaluation, score
from regard.tasks.load import load

LITTLE = 0.2  # share of a source's 4-grams of words that stand in the sources of train
MOST_BYTES = 16_000_000
PRIVATE = ("files", "valid", "out", "start")  # options that name places on the machine

CARD = """# English to Italian, for descriptions of software

The model that `regard translate` and `regard see` take without `--model`: a small Transformer (Vaswani et al. 2017).

**Data.** Descriptions of Debian's packages (suite bookworm, section main) and their translations by Debian's volunteer
translators: {train:,} pairs to train on, {valid:,} to choose by, {test:,} to test once. It knows the language of
synopses and paragraphs about software, and little else; it was not made for other text, and it makes mistakes.

**Size.** {parameters:,} parameters in half precision, {megabytes:.1f} MB with its tokenizer of {vocabulary:,} subwords.

**Training.** {tokens:,} target tokens in {steps:,} steps, {minutes:.0f} minutes on two cores that had other work
too. To train it again, of files with an English text, a tab and its Italian translation a line:

```sh
{command}
```
{note}
**Scores** of `regard evaluate` (beam 4, sacrebleu's defaults), of the weights as they are shipped:

| test rows | pairs | BLEU | chrF |
| --- | --- | --- | --- |
{rows}
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", help="the run's folder")
    parser.add_argument("--pairs", required=True, help="folder of train.tsv.gz and test.tsv.gz")
    parser.add_argument("--note", default="", help="what else the card shall say of the training")
    said = parser.parse_args()

    module, tokenizer, config = folders.read(said.run)
    trained = config["training"]
    options = {name: x for name, x in trained["options"].items() if name not in PRIVATE}
    folders.save(
        SHIPPED, module, tokenizer, {"training": {**trained, "options": options}}, task="translate", dtype="float16"
    )
    size = sum(path.stat().st_size for path in SHIPPED.iterdir())
    if size > MOST_BYTES:
        raise SystemExit(f"{SHIPPED} has {size:,} bytes; at most {MOST_BYTES:,} are shipped")

    translator = load()
    test = list(read_pairs([f"{said.pairs}/test.tsv.gz"]))
    found = translator.evaluate(test)
    known = four_grams(pair.source for pair in read_pairs([f"{said.pairs}/train.tsv.gz"]))
    new = [i for i, pair in enumerate(test) if share(pair.source, known) < LITTLE]
    parts = rows_of(found, [test[i].target for i in new], [found.translations[i].text for i in new])
    cases: list[dict[str, Any]] = []
    for name, pairs, scores in parts:
        for unit, value in (("BLEU", scores.bleu), ("chrF", scores.chrf)):
            case = f"shipped model, test, {name} ({pairs:,} pairs)"
            cases.append({"case": case, "value": round(value, 1), "unit": unit, "bar": None})
    cases[0] |= {"bar": 50.0, "at_least": True}
    flags = [f"--{name.replace('_', '-')} {x}" for name, x in options.items() if not isinstance(x, dict)]
    card = CARD.format(
        train=trained["data"]["train"],
        valid=trained["data"]["valid"],
        test=len(test),
        parameters=sum(p.numel() for p in module.parameters()),
        megabytes=size / 1e6,
        vocabulary=tokenizer.size,
        tokens=trained["tokens"],
        steps=trained["step"],
        minutes=trained["minutes"],
        command=f"regard train train.tsv.gz --valid valid.tsv.gz --out runs/en-it {' '.join(flags)}",
        note=f"\n{said.note}\n" if said.note else "",
        rows="\n".join(f"| {name} | {pairs:,} | {s.bleu:.1f} | {s.chrf:.1f} |" for name, pairs, s in parts),
    )
    (SHIPPED / "README.md").write_text(card, encoding="utf-8")
    write("shipped", cases)


def rows_of(found: Evaluation, references: list[str], texts: list[str]) -> list[tuple[str, int, Any]]:
    """What the card's table shows: all, those that are unlike train, and by length."""
    rows = [("all", found.pairs, found.scores)]
    if texts:
        rows.append((f"under {LITTLE:.0%} of 4-grams in train", len(texts), score(texts, references)))
    for bucket in found.buckets:
        last = f"to {bucket.longest}" if bucket.longest else "or more"
        rows.append((f"{bucket.shortest} {last} words", bucket.pairs, bucket.scores))
    return rows


def four_grams(texts: Iterable[str]) -> set[tuple[str, ...]]:
    """Every four words that stand together."""
    return {gram for text in texts for gram in grams(text)}


def grams(text: str) -> list[tuple[str, ...]]:
    words = text.lower().split()
    return [tuple(words[i : i + 4]) for i in range(len(words) - 3)]


def share(text: str, known: set[tuple[str, ...]]) -> float:
    """Of a text's four-grams, how many are known; 1 for a text that has none."""
    found = grams(text)
    return sum(gram in known for gram in found) / len(found) if found else 1.0


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
