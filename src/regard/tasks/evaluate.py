"""Evaluation of translations against references: BLEU, chrF and speed, overall and by length."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, final

from regard.data.rows import Pair
from regard.data.tokenizer import Tokenizer
from regard.decode.search import Beam, Search
from regard.errors import ConfigError, DataError, nearest
from regard.models.seq2seq import Seq2Seq
from regard.tasks.score_table import ScoreTable, as_text
from regard.tasks.translation import Translation, translate

TOKENIZE = "13a"  # sacrebleu's own default
LONGEST_OF_BUCKETS = (5, 10, 20, 30, 50)  # upper bounds in words of the source; the last bucket has none


class Scores(NamedTuple):
    """Both from 0 to 100, computed by sacrebleu."""

    bleu: float
    chrf: float


@final
class Metrics:
    """BLEU and chrF, as sacrebleu computes them.

    Args:
        tokenize: BLEU's tokenizer, by sacrebleu's name: "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char",
            "flores101", "flores200" or "none".

    Raises:
        ConfigError: an unknown tokenizer, or one whose package or vocabulary is not installed.
    """

    def __init__(self, tokenize: str = TOKENIZE) -> None:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF

        if tokenize not in BLEU.TOKENIZERS:
            raise ConfigError(f"tokenize={tokenize!r} is none of sacrebleu's; {nearest(tokenize, BLEU.TOKENIZERS)}")
        try:
            # force: no warning of texts that are tokenized already; it is not for this function to judge.
            self._metrics = {"bleu": BLEU(force=True, tokenize=tokenize), "chrf": CHRF()}
        except (RuntimeError, ImportError, OSError) as error:
            why = "sacrebleu cannot download its vocabulary: " if isinstance(error, OSError) else ""
            raise ConfigError(f"tokenize={tokenize!r}: {why}{' '.join(str(error).split())}") from error

    def scores(self, texts: Sequence[str], references: Sequence[str]) -> Scores:
        """The scores of a corpus, each text against one reference."""
        return Scores(**{name: one.corpus_score(texts, [references]).score for name, one in self._metrics.items()})

    def signatures(self) -> dict[str, str]:
        """sacrebleu's signature of each score, by name; call it after `scores`."""
        return {name: str(one.get_signature()) for name, one in self._metrics.items()}


class Bucket(NamedTuple):
    """Scores of the pairs whose sources have between `shortest` and `longest` words."""

    shortest: int
    longest: int | None  # None: no bound
    pairs: int
    scores: Scores


class Evaluation(NamedTuple):
    """Result of `evaluate`."""

    scores: Scores
    exact: float  # share of translations equal to the reference
    buckets: list[Bucket]
    pairs: int
    unfinished: int  # translations that were cut off at the maximum length
    seconds: float
    tokens: int  # tokens generated, end tokens included
    translations: list[Translation]
    signatures: dict[str, str]  # sacrebleu's signature of each score, by name
    search: str  # repr of the search

    def parts(self) -> list[ScoreTable | str]:
        """The scores by length and overall as a table, and lines about speed and settings."""
        rows = []
        for bucket in self.buckets:
            words = f"{bucket.shortest}+" if bucket.longest is None else f"{bucket.shortest}-{bucket.longest}"
            rows.append((words, f"{bucket.pairs:,}", *(f"{x:.1f}" for x in bucket.scores)))
        rows.append(("all", f"{self.pairs:,}", *(f"{x:.1f}" for x in self.scores)))
        return [
            ScoreTable(("words of source", "pairs", "BLEU", "chrF"), rows, widths=(16, 8, 8, 8)),
            "",
            f"{self.exact:.1%} exactly as the reference; {self.unfinished:,} cut off at the maximum length",
            f"{self.pairs / self.seconds:,.1f} pairs/s, {self.tokens / self.seconds:,.0f} tokens/s",
            f"{self.seconds:,.1f} s with {self.search}",
            *(f"sacrebleu {name}: {signature}" for name, signature in self.signatures.items()),
        ]

    def table(self) -> str:
        """The scores by length and overall, and the speed, as lines of text."""
        return as_text(self.parts())

    def __repr__(self) -> str:
        numbers = {name: x for name, x in self._asdict().items() if name != "translations"}
        return f"Evaluation({', '.join(f'{name}={x!r}' for name, x in numbers.items())}, translations=[...])"

    def to_plain(self) -> dict[str, Any]:
        """The numbers as JSON types, without the texts."""
        buckets = [{**b._asdict(), "scores": b.scores._asdict()} for b in self.buckets]
        numbers = {name: x for name, x in self._asdict().items() if name != "translations"}
        speed = {"pairs_per_second": self.pairs / self.seconds, "tokens_per_second": self.tokens / self.seconds}
        return {**numbers, "scores": self.scores._asdict(), "buckets": buckets, **speed}


def evaluate(
    module: Seq2Seq,
    tokenizer: Tokenizer,
    pairs: Iterable[Pair | tuple[str, str]],
    *,
    search: Search = Beam(),
    max_source_length: int = 256,
    split_length: int | None = None,
    whole: bool = False,
    max_length: int | Callable[[int], int] | None = None,
    batch_size: int = 32,
    tokenize: str = TOKENIZE,
    **options: Any,
) -> Evaluation:
    """Translate the sources of pairs, and compare with their targets.

    Args:
        module: the model.
        tokenizer: of the model.
        pairs: sources and references.
        search: `Beam`, `Greedy` or `Sample`.
        max_source_length, split_length, whole: lengths at which sources are split; as for `translate`.
        max_length: maximum number of tokens of a target; as for `translate`.
        batch_size: sentences per batch.
        tokenize: as for `Metrics`.
        options: further arguments of `translate`: constraints, prefix.

    Returns:
        BLEU and chrF over all and by length of the source, and the speed.

    Raises:
        DataError: no pairs.
        ConfigError: as for `Metrics`.
    """
    metrics = Metrics(tokenize)  # before the work, which an error would lose
    rows = [(pair[0], pair[1]) for pair in pairs]
    if not rows:
        raise DataError("no pairs to evaluate; give a file with at least one row")
    sources, references = [row[0] for row in rows], [row[1] for row in rows]
    start = time.perf_counter()
    options |= {
        "max_source_length": max_source_length,
        "split_length": split_length,
        "whole": whole,
        "max_length": max_length,
    }
    translations = translate(module, tokenizer, sources, search=search, **options, batch_size=batch_size)
    seconds = time.perf_counter() - start
    texts = [translation.text for translation in translations]
    best = [translation.candidates[0] for translation in translations]
    return Evaluation(
        scores=metrics.scores(texts, references),
        exact=sum(text == reference for text, reference in zip(texts, references, strict=True)) / len(rows),
        buckets=by_length(sources, texts, references, metrics),
        pairs=len(rows),
        unfinished=sum(not candidate.finished for candidate in best),
        seconds=seconds,
        tokens=sum(len(ids) + 1 for candidate in best for ids in candidate.tokens),
        translations=translations,
        signatures=metrics.signatures(),
        search=repr(search),
    )


def score(texts: Sequence[str], references: Sequence[str], *, tokenize: str = TOKENIZE) -> Scores:
    """BLEU and chrF of texts, each against one reference.

    Args:
        texts: hypotheses.
        references: one for each text.
        tokenize: as for `Metrics`.

    Returns:
        The scores of the whole corpus.

    Raises:
        ConfigError: as for `Metrics`.

    Source: Papineni et al. 2002, section 2.3; Popović 2015, section 2; computed by sacrebleu (Post 2018).
    """
    return Metrics(tokenize).scores(texts, references)


def by_length(
    sources: Sequence[str], texts: Sequence[str], references: Sequence[str], metrics: Metrics | None = None
) -> list[Bucket]:
    """Scores of the pairs in each non-empty bucket of source lengths."""
    metrics = metrics or Metrics()
    lengths = [len(source.split()) for source in sources]
    buckets, shortest = [], 0
    for longest in (*LONGEST_OF_BUCKETS, None):
        inside = [i for i, n in enumerate(lengths) if n >= shortest and (longest is None or n <= longest)]
        if inside:
            scores = metrics.scores([texts[i] for i in inside], [references[i] for i in inside])
            buckets.append(Bucket(shortest, longest, len(inside), scores))
        shortest = (longest or 0) + 1
    return buckets
