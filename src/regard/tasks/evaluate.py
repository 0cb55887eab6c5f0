"""How good translations are, and how fast they came: against references, over all and by length."""

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from regard.data.rows import Pair
from regard.data.tokenizer import Tokenizer
from regard.decode.search import Beam, Search
from regard.errors import DataError
from regard.models.seq2seq import Seq2Seq
from regard.tasks.translate import Translation, translate

LONGEST_OF_BUCKETS = (5, 10, 20, 30, 50)  # words of the source; one more bucket holds what is longer


class Scores(NamedTuple):
    """Both from 0 to 100, by sacrebleu's defaults."""

    bleu: float
    chrf: float


class Bucket(NamedTuple):
    """The pairs whose sources have so many words."""

    shortest: int
    longest: int | None  # None: no bound
    pairs: int
    scores: Scores


class Evaluation(NamedTuple):
    """What `evaluate` found."""

    scores: Scores
    exact: float  # share of translations that are the reference, letter by letter
    buckets: list[Bucket]
    pairs: int
    unfinished: int  # translations that were cut off, for the model did not end them
    seconds: float
    tokens: int  # that were written, the end marks included
    translations: list[Translation]

    def to_plain(self) -> dict[str, Any]:
        """The numbers as JSON's types; texts are left out."""
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
    longest: int = 256,
    usual: int | None = None,
    batch_size: int = 32,
    **how: Any,
) -> Evaluation:
    """Translate the sources of pairs, and compare with their targets.

    Args:
        module: the model.
        tokenizer: what it was trained with.
        pairs: sources and references.
        search: how the target is looked for.
        longest, usual: beyond how many tokens sources are split; as for `translate`.
        batch_size: sentences that run together.
        how: what else `translate` takes: constraints, max_length, prefix.

    Returns:
        BLEU and chrF over all and by length of the source, and the speed.

    Raises:
        DataError: no pairs.
    """
    rows = [(pair[0], pair[1]) for pair in pairs]
    if not rows:
        raise DataError("no pairs to evaluate; give a file with at least one row")
    sources, references = [row[0] for row in rows], [row[1] for row in rows]
    start = time.perf_counter()
    how |= {"longest": longest, "usual": usual}
    translations = translate(module, tokenizer, sources, search=search, **how, batch_size=batch_size)
    seconds = time.perf_counter() - start
    texts = [translation.text for translation in translations]
    best = [translation.candidates[0] for translation in translations]
    return Evaluation(
        scores=score(texts, references),
        exact=sum(text == reference for text, reference in zip(texts, references, strict=True)) / len(rows),
        buckets=by_length(sources, texts, references),
        pairs=len(rows),
        unfinished=sum(not candidate.finished for candidate in best),
        seconds=seconds,
        tokens=sum(len(ids) + 1 for candidate in best for ids in candidate.tokens),
        translations=translations,
    )


def score(texts: Sequence[str], references: Sequence[str]) -> Scores:
    """BLEU and chrF of texts, each against one reference.

    Args:
        texts: what was written.
        references: what should have been, as many.

    Returns:
        The scores of the whole corpus.

    Source: Papineni et al. 2002, section 2.3; Popović 2015, section 2; computed by sacrebleu (Post 2018).
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    # force: no warning of texts that are tokenized already; it is not for this function to judge.
    bleu = BLEU(force=True).corpus_score(texts, [references])
    return Scores(bleu.score, CHRF().corpus_score(texts, [references]).score)


def by_length(sources: Sequence[str], texts: Sequence[str], references: Sequence[str]) -> list[Bucket]:
    """The scores of the pairs of like length, where there are any."""
    lengths = [len(source.split()) for source in sources]
    buckets, shortest = [], 0
    for longest in (*LONGEST_OF_BUCKETS, None):
        inside = [i for i, n in enumerate(lengths) if n >= shortest and (longest is None or n <= longest)]
        if inside:
            scores = score([texts[i] for i in inside], [references[i] for i in inside])
            buckets.append(Bucket(shortest, longest, len(inside), scores))
        shortest = (longest or 0) + 1
    return buckets
