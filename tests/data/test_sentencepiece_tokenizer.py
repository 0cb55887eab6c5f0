"""T5's and Marian's tokenizers against the transformers package's, which are made of SentencePiece itself."""

import json
import warnings

import pytest

from regard.data.sentencepiece_tokenizer import SentencePieceTokenizer, marian_tokenizer, t5_tokenizer
from tests.data.mixed_text import lines, trained

sentencepiece = pytest.importorskip("sentencepiece")
transformers = pytest.importorskip("transformers")

T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "vocab_size": 700}


@pytest.fixture(scope="module")
def t5():
    return t5_tokenizer(trained(**T5), extra_ids=7)


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    """Ours and theirs, of two model files whose pieces overlap, with ids of their own and a language."""
    folder = tmp_path_factory.mktemp("marian")
    files = {"source": trained(vocab_size=700), "target": trained(vocab_size=650, character_coverage=0.985)}
    pieces = []
    for side, model in files.items():
        (folder / f"{side}.spm").write_bytes(model)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        pieces += [processor.id_to_piece(i) for i in range(3, processor.vocab_size())]
    tokens = ["</s>", "<unk>", *sorted(set(pieces))[:-20], ">>fra<<", "<pad>"]  # some pieces have no id
    ids = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    with warnings.catch_warnings(action="ignore"):  # that sacremoses is missing, on which its ids don't depend
        theirs = transformers.MarianTokenizer.from_pretrained(folder)
    return marian_tokenizer(files["source"], files["target"], ids), theirs


def test_t5_is_sentencepiece_between_its_marks(t5):
    theirs = sentencepiece.SentencePieceProcessor(model_proto=trained(**T5))
    texts = lines(1000, seed=20)
    assert t5.encode_batch(texts) == theirs.encode(texts)
    first, last = t5.size - 1, t5.size - 7
    assert (t5.id_of("<extra_id_0>"), t5.id_of("<extra_id_6>"), last) == (first, last, theirs.vocab_size())
    found = t5.encode("The <extra_id_0> walks in<extra_id_6> park", marks=True)
    assert found == [*theirs.encode("The"), first, *theirs.encode("walks in"), last, *theirs.encode("park"), 1]
    assert t5.decode([0, *found]) == "The <extra_id_0> walks in <extra_id_6> park"
    assert t5.decode([5, t5.size + 27]) == t5.decode([5])  # a row of the embedding that no token has
    assert (t5.pad, t5.bos, t5.eos, t5.role("unk")) == (0, None, 1, 2)


def test_t5s_ids_are_those_of_transformers(t5):
    model = t5._source.model
    vocabulary = [(piece.text, piece.score) for piece in model.pieces]
    vocabulary += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(7))]
    theirs = transformers.T5Tokenizer(vocab=vocabulary, extra_ids=7)
    texts = ["a word", "<extra_id_0> in <extra_id_3>", "translate English to German: abc déjà", "  two   spaces "]
    assert [t5.encode(text, marks=True) for text in texts] == theirs(texts).input_ids


def test_marian_is_transformers(marian):
    ours, theirs = marian
    texts = lines(1000, seed=21, marks=False)
    texts += [f">>fra<< {text}" for text in texts[:20]] + [">>xyz<<a", ">>no language", ">><<", "a >>fra<< b"]
    assert [ours.encode(text, marks=True) for text in texts] == theirs(texts).input_ids
    assert [ours.encode(text, marks=True, target=True) for text in texts] == theirs(text_target=texts).input_ids
    ids = [ours.encode(text, target=True) for text in texts]
    assert ours.decode_batch(ids) == theirs.batch_decode(ids, skip_special_tokens=True)


def test_marks_in_a_text_are_text(t5, marian):
    for tokenizer in (t5, marian[0]):
        marks = {tokenizer.pad, tokenizer.eos}
        assert not marks & set(tokenizer.encode("a </s> b <pad> <pad></s>"))


def test_words_and_pieces(t5):
    ids = [*t5.encode("wide full <extra_id_0>"), 1]
    words = t5.words(ids)
    assert [word for word, _ in words] == ["wide", "full", "<extra_id_0>", "</s>"]
    assert [i for _, span in words for i in span] == list(range(len(ids)))
    assert "".join(t5.pieces(ids)) == "widefull<extra_id_0></s>"


def test_a_saved_tokenizer_comes_back(t5, marian, tmp_path):
    for tokenizer in (t5, marian[0]):
        tokenizer.save(tmp_path / "tokenizer.json")
        again = SentencePieceTokenizer.load(tmp_path / "tokenizer.json")
        assert (again.fingerprint, again.size) == (tokenizer.fingerprint, tokenizer.size)
        texts = lines(50, seed=22)
        assert again.encode_batch(texts) == tokenizer.encode_batch(texts)
    assert t5.fingerprint != marian[0].fingerprint
