"""Scores are sacrebleu's; buckets part the pairs by the words of their sources."""

import json

import pytest

from regard.decode.search import Greedy
from regard.tasks.evaluate import by_length, evaluate, score
from tests.checkpoints.made import SENTENCES, tokenizer, transformer


def test_scores_are_those_of_sacrebleu() -> None:
    import sacrebleu

    texts, references = ["the cat sat on the mat", "a dog ran"], ["the cat sat on a mat", "a dog ran away"]
    assert score(texts, references).bleu == pytest.approx(sacrebleu.corpus_bleu(texts, [references]).score)
    assert score(texts, references).chrf == pytest.approx(sacrebleu.corpus_chrf(texts, [references]).score)
    assert score(references, references) == pytest.approx((100, 100))


def test_buckets() -> None:
    sources = ["a b c d e", "a b c d e f", " ".join("a" * 51), ""]
    texts = ["one two three four"] * 4
    buckets = by_length(sources, texts, texts)
    assert [(bucket.shortest, bucket.longest, bucket.pairs) for bucket in buckets] == [
        (0, 5, 2),
        (6, 10, 1),
        (51, None, 1),
    ]
    assert all(bucket.scores.bleu == pytest.approx(100) for bucket in buckets)


def test_a_model_agrees_with_itself() -> None:
    module = transformer()
    first = evaluate(module, tokenizer(), [(text, "x") for text in SENTENCES], search=Greedy())
    texts = [translation.text for translation in first.translations]
    found = evaluate(module, tokenizer(), zip(SENTENCES, texts, strict=True), search=Greedy())
    assert found.exact == 1
    assert found.scores.chrf == pytest.approx(100)
    assert first.exact == 0
    assert (found.pairs, found.seconds > 0, found.tokens > 0) == (4, True, True)
    plain = json.loads(json.dumps(found.to_plain()))
    assert plain["scores"]["bleu"] == found.scores.bleu
    assert plain["pairs_per_second"] == found.pairs / found.seconds
    assert "translations" not in plain
