"""Texts with labels: descriptions of Debian's packages, and the section of the archive that each package is in.

Made from the summaries' folder and from what `apt-cache dumpavail` prints: a summary is a package's synopsis, by which
its section is found. Texts that name their label are left out, and rows of equal texts kept once.
"""

import argparse
import csv
import gzip
import json
import re
import subprocess
from collections import defaultdict
from pathlib import Path
from zlib import crc32

LABELS = ("admin", "database", "editors", "electronics", "fonts", "games", "graphics", "mail", "math", "net", "science",
          "sound", "text", "video", "web")  # fmt: skip
PARTS = {"test": range(15), "valid": range(15, 22), "train": range(22, 100)}  # by a hash of the text, of 100


def sections(packages: str) -> dict[str, set[str]]:
    """The sections of each synopsis."""
    found = defaultdict(set)
    for block in packages.split("\n\n"):
        fields = dict(re.findall(r"^(Section|Description): (.*)$", block, re.MULTILINE))
        if len(fields) == 2:
            found[fields["Description"]].add(fields["Section"].rpartition("/")[2])
    return found


def rows(folder: Path, by_synopsis: dict[str, set[str]]) -> dict[str, str]:
    """Labels by text."""
    found = {}
    for part in PARTS:
        with gzip.open(folder / f"{part}.jsonl.gz", "rt", encoding="utf-8") as file:
            for row in map(json.loads, file):
                [label, *more] = by_synopsis.get(row["summary"]) or [""]
                named = re.search(rf"\b{label}s?\b", row["document"], re.IGNORECASE)
                if label in LABELS and not more and not named:
                    found[row["document"]] = label
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("summaries", type=Path, help="folder of train, valid and test.jsonl.gz")
    parser.add_argument("out", type=Path, help="folder of train.csv, valid.csv and test.csv, which are written")
    given = parser.parse_args()
    told = subprocess.run(["apt-cache", "dumpavail"], check=True, capture_output=True, text=True)
    labels = rows(given.summaries, sections(told.stdout))
    given.out.mkdir(parents=True, exist_ok=True)
    for part, share in PARTS.items():
        chosen = [(text, label) for text, label in labels.items() if crc32(text.encode()) % 100 in share]
        with (given.out / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *chosen])
        print(f"{part}: {len(chosen):,} rows")


if __name__ == "__main__":
    main()
