"""Scores are sacrebleu's; buckets part the pairs by the words of their sources."""

import json
from pathlib import Path

import pytest

from regard.decode.search import Greedy
from regard.errors import ConfigError
from regard.tasks.evaluate import Metrics, by_length, evaluate, score
from tests.checkpoints.made import SENTENCES, tokenizer, transformer


def test_scores_are_those_of_sacrebleu() -> None:
    import sacrebleu

    texts, references = ["the cat sat on the mat", "a dog ran"], ["the cat sat on a mat", "a dog ran away"]
    assert score(texts, references).bleu == pytest.approx(sacrebleu.corpus_bleu(texts, [references]).score)
    assert score(texts, references).chrf == pytest.approx(sacrebleu.corpus_chrf(texts, [references]).score)
    assert score(references, references) == pytest.approx((100, 100))


@pytest.mark.parametrize("tokenize", ["char", "intl", "zh", "none"])
def test_other_tokenizers_of_sacrebleu(tokenize: str) -> None:
    import sacrebleu

    texts, references = ["the cat's $5 mat", "a dog\uff0cran"], ["the cats' $5 mat", "a dog\uff0cran away"]
    expected = sacrebleu.corpus_bleu(texts, [references], tokenize=tokenize, force=True).score
    assert score(texts, references, tokenize=tokenize).bleu == pytest.approx(expected)
    metrics = Metrics(tokenize)
    metrics.scores(texts, references)
    assert f"|tok:{tokenize}|" in metrics.signatures()["bleu"]


def test_a_vocabulary_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    from sacrebleu.tokenizers import tokenizer_spm

    def download(url: str, path: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(tokenizer_spm, "download_file", download)
    with pytest.raises(ConfigError, match="'flores200': sacrebleu cannot download its vocabulary: no network"):
        Metrics("flores200")


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
    assert "|tok:13a|" in plain["signatures"]["bleu"]
    assert plain["signatures"]["chrf"].startswith("nrefs:1|")
    assert plain["pairs_per_second"] == found.pairs / found.seconds
    assert "translations" not in plain
