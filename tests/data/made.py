"""Files of pairs for the tests of this folder."""

import random
from pathlib import Path

WORDS = ["casa", "libro", "acqua", "fiume", "monte", "strada", "notte", "giorno", "vento", "mare", "pane", "luce"]


def made_pairs(rows: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sources of one to nine words and a number that occurs once; targets are the words the other way round."""
    random_ = random.Random(seed)
    pairs = []
    for row in range(rows):
        words = random_.choices(WORDS, k=random_.randint(1, 9))
        pairs.append((" ".join([*words, str(row)]), " ".join([str(row), *reversed(words)])))
    return pairs


def write_tsv(path: Path, pairs: list[tuple[str, str]]) -> str:
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    return str(path)
