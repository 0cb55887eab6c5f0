"""Word alignments from attention, their error against hand-made ones, and IBM model 1 as the baseline."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from regard.errors import DataError

Links = frozenset[tuple[int, int]]  # (source word, target word), counted from 0
LINK = re.compile(r"(\d+)([-?p])(\d+)")


class Gold(NamedTuple):
    """Hand-made links of a sentence pair: the sure ones, and the possible ones, sure ones among them."""

    sure: Links
    possible: Links


class AlignmentError(NamedTuple):
    """Errors of links over a corpus."""

    aer: float  # alignment error rate
    precision: float  # share of the links that are possible
    recall: float  # share of the sure links that were found


def read_gold(line: str) -> Gold:
    """The links of a line: "0-0" is sure, "1?2" or "1p2" possible.

    Args:
        line: links with white space between them; may be empty.

    Returns:
        The links.

    Raises:
        DataError: something else than links.

    >>> read_gold("0-0 1?2").possible == {(0, 0), (1, 2)}
    True
    """
    sure, possible = set(), set()
    for word in line.split():
        match = LINK.fullmatch(word)
        if match is None:
            raise DataError(f"alignment {word!r} is no link; expected source-target, as 0-0, or 0?0 for a possible one")
        link = (int(match[1]), int(match[3]))
        possible.add(link)
        if match[2] == "-":
            sure.add(link)
    return Gold(frozenset(sure), frozenset(possible))


def extract(weights: Tensor, *, shift: int = 0) -> Links:
    """Each target word with the source word of its largest weight.

    Args:
        weights: (T, S).
        shift: row that belongs to a target word: 0 for the step that wrote it, 1 for the step that read it, whose
            attention often fits better (Chen et al. 2020, arXiv 2004.14837, section 3.1).

    Returns:
        The links; a word whose row is missing or 0 has none.
    """
    links = set()
    for target in range(len(weights) - shift):
        row = weights[target + shift]
        if float(row.max()) > 0:
            links.add((int(row.argmax()), target))
    return frozenset(links)


def alignment_error(found: Iterable[Links], gold: Iterable[Gold]) -> AlignmentError:
    """Alignment error rate, precision and recall over a corpus.

    AER = 1 - (|A and S| + |A and P|) / (|A| + |S|), with A the links, S the sure and P the possible ones.

    Args:
        found: links of each pair.
        gold: hand-made links of each pair.

    Returns:
        The errors; of no links at all, AER 1.

    Source: Och and Ney 2003, "A systematic comparison of various statistical alignment models", equation 40.
    """
    in_sure = in_possible = links = sure = 0
    for mine, theirs in zip(found, gold, strict=True):
        in_sure += len(mine & theirs.sure)
        in_possible += len(mine & theirs.possible)
        links += len(mine)
        sure += len(theirs.sure)
    total = links + sure
    return AlignmentError(
        aer=1 - (in_sure + in_possible) / total if total else 1.0,
        precision=in_possible / links if links else 0.0,
        recall=in_sure / sure if sure else 0.0,
    )


def ibm_model_1(pairs: Sequence[tuple[Sequence[str], Sequence[str]]], *, iterations: int = 10) -> list[Links]:
    """The alignments of IBM model 1, trained on the pairs themselves.

    Each target word is made by one source word, or by none, with a probability t(target | source) that expectation
    maximization estimates from uniform ones.

    Args:
        pairs: words of source and target.
        iterations: of expectation maximization.

    Returns:
        Of each pair, each target word with the source word of the largest probability; none where it is no word's.

    Source: Brown et al. 1993, "The mathematics of statistical machine translation", section 4.1.
    """
    nothing = ""
    translation: dict[tuple[str, str], float] = defaultdict(lambda: 1.0)
    for _ in range(iterations):
        counts: dict[tuple[str, str], float] = defaultdict(float)
        totals: dict[str, float] = defaultdict(float)
        for source, target in pairs:
            sources = [nothing, *source]
            for word in target:
                norm = sum(translation[word, one] for one in sources)
                for one in sources:
                    share = translation[word, one] / norm
                    counts[word, one] += share
                    totals[one] += share
        translation = defaultdict(float, {(word, one): x / totals[one] for (word, one), x in counts.items()})
    aligned = []
    for source, target in pairs:
        links = set()
        for j, word in enumerate(target):
            best = max(range(len(source)), key=lambda i: translation[word, source[i]], default=None)
            if best is not None and translation[word, source[best]] > translation[word, nothing]:
                links.add((best, j))
        aligned.append(frozenset(links))
    return aligned
