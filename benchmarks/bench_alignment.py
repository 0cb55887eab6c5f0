"""How well does the shipped translator's attention align words? Error rates against alignments made by hand.

100 pairs of 8 to 20 words of the test set, aligned twice, independently and without sight of a model's output, are in
`alignments.tsv`: the first digits of the pair's SHA-256, and the links of both. Sure are the links that both hold sure,
possible those that either has (Och and Ney 2003, section 5). IBM model 1 is trained on these and on training pairs.
"""

import argparse
import gzip
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import write

import regard as rg
from regard.lens.alignment_error import Gold, Links, read_gold
from regard.lens.studies import AlignmentRow, alignment_study

GOLD = Path(__file__).parent / "alignments.tsv"
DIGITS = 12
CORPUS = 20_000  # pairs of training for IBM model 1


def rows_of(path: Path) -> Iterator[tuple[str, str]]:
    """Source and target of each line."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            source, target = line.rstrip("\n").split("\t")
            yield source, target


def key_of(pair: tuple[str, str]) -> str:
    """What stands for a pair in the file of alignments."""
    return hashlib.sha256("\t".join(pair).encode()).hexdigest()[:DIGITS]


def gold_of(path: Path) -> dict[str, tuple[Gold, Gold]]:
    """The links of both annotators, by the pair's key."""
    lines = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return {key: (read_gold(first), read_gold(second)) for key, first, second in lines}


def together(first: Gold, second: Gold) -> Gold:
    """Sure links of both, possible links of either."""
    return Gold(first.sure & second.sure, first.possible | second.possible)


def agreement(both: list[tuple[Links, Links]]) -> float:
    """2 |A and B| / (|A| + |B|)."""
    common = sum(len(first & second) for first, second in both)
    return 2 * common / sum(len(first) + len(second) for first, second in both)


def cases(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Agreement, and the errors of each way to read links."""
    links = gold_of(GOLD)
    pairs = [pair for pair in rows_of(Path(given.pairs, "test.tsv.gz")) if key_of(pair) in links]
    if len(pairs) != len(links):
        raise SystemExit(f"{given.pairs}: {len(pairs)} of the {len(links)} aligned pairs are in test.tsv.gz")
    both = [links[key_of(pair)] for pair in pairs]
    for name, value in (
        ("sure links", agreement([(first.sure, second.sure) for first, second in both])),
        ("all links", agreement([(first.possible, second.possible) for first, second in both])),
    ):
        yield {"case": f"agreement of the annotators: {name}", "unit": "F1", "value": round(value, 3), "bar": None}
    gold = [together(*one) for one in both]
    if given.quick:
        pairs, gold = pairs[:4], gold[:4]
    translator = rg.load()
    weights = [translator.see(*pair) for pair in pairs]
    norms = [translator.see(*pair, norms=True) for pair in pairs]
    corpus = [
        pair
        for _, pair in zip(
            range(50 if given.quick else CORPUS), rows_of(Path(given.pairs, "train.tsv.gz")), strict=False
        )
    ]
    for row in alignment_study(weights, pairs, gold, norms=norms, corpus=corpus):
        yield from _cases_of(row)


def _cases_of(row: AlignmentRow) -> Iterator[dict[str, Any]]:
    for unit, value in row.error._asdict().items():
        name = "AER" if unit == "aer" else unit
        yield {"case": row.name, "unit": name, "value": round(value, 3), "bar": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", default=os.environ.get("REGARD_PAIRS"), help="folder of train and test.tsv.gz")
    parser.add_argument("--quick", action="store_true", help="try the script out")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.pairs is None:
        parser.error("--pairs FOLDER, or $REGARD_PAIRS: pairs as train and test.tsv.gz")
    write("alignment", cases(given), quick=given.quick)


if __name__ == "__main__":
    main()
