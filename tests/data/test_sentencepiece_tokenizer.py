"""T5's and Marian's tokenizers against the transformers package's, which are made of SentencePiece itself."""

import base64
import json
import warnings

import pytest
import sentencepiece

from regard.data.sentencepiece_layouts import marian_tokenizer, t5_tokenizer
from regard.data.sentencepiece_tokenizer import SentencePieceTokenizer
from tests.data.mixed_text import lines, trained

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
    texts = lines(1000, seed=20, marks=False)
    assert t5.encode_batch(texts) == theirs.encode(texts)
    first, last = t5.size - 1, t5.size - 7
    assert (t5.id_of("<extra_id_0>"), t5.id_of("<extra_id_6>"), last) == (first, last, theirs.vocab_size())
    found = t5.encode("The <extra_id_0> walks in<extra_id_6> park", marks=True)
    assert found == [*theirs.encode("The"), first, *theirs.encode("walks in"), last, *theirs.encode("park"), 1]
    assert t5.decode([0, *found]) == "The <extra_id_0> walks in <extra_id_6> park"
    assert t5.decode([5, t5.size + 27]) == t5.decode([5])  # a row of the embedding that no token has
    assert (t5.pad, t5.bos, t5.eos, t5.role("unk")) == (0, None, 1, 2)


def test_t5s_ids_are_those_of_transformers(t5):
    model = sentencepiece.SentencePieceProcessor(model_proto=trained(**T5))
    vocabulary = [(model.id_to_piece(i), model.get_score(i)) for i in range(len(model))]
    vocabulary += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(7))]
    theirs = transformers.T5Tokenizer(vocab=vocabulary, extra_ids=7)
    texts = ["a word", "<extra_id_0> in <extra_id_3>", "translate English to German: abc déjà", "  two   spaces "]
    texts += ["a </s> b <pad>", "a</s>b <unk>", "</s>", " <extra_id_1>x"]
    assert [t5.encode(text, marks=True) for text in texts] == theirs(texts).input_ids


def test_marian_is_transformers(marian):
    ours, theirs = marian
    texts = [*lines(1000, seed=21), "a</s>b", "</s>>>fra<< a", "a </s> >>fra<< b", "<pad>"]
    texts += [f">>fra<< {text}" for text in texts[:20]] + [">>xyz<<a", ">>no language", ">><<", "a >>fra<< b"]
    assert [ours.encode(text, marks=True) for text in texts] == theirs(texts).input_ids
    assert [ours.encode(text, marks=True, target=True) for text in texts] == theirs(text_target=texts).input_ids
    ids = [ours.encode(text, target=True) for text in texts]
    assert ours.decode_batch(ids) == theirs.batch_decode(ids, skip_special_tokens=True)


def test_marks_in_a_text_are_marks(t5, marian):
    for tokenizer in (t5, marian[0]):
        found = tokenizer.encode("a </s> b <pad> <pad></s>")
        assert [i for i in found if i in (tokenizer.pad, tokenizer.eos)] == [
            tokenizer.eos, tokenizer.pad, tokenizer.pad, tokenizer.eos,
        ]  # fmt: skip
        assert tokenizer.decode(found) == "a b"


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


def test_a_file_of_an_earlier_version_comes_back(t5, marian, tmp_path):
    """As they were written before tokens had flags."""
    model = base64.b64encode(trained(**T5)).decode()
    extra = {f"<extra_id_{i}>": t5.size - 1 - i for i in range(7)}
    roles = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
    plain = {"kind": "sentencepiece", "source": model, "target": None, "ids": None, "extra": extra, "roles": roles}
    (tmp_path / "t5.json").write_text(json.dumps(plain))
    assert SentencePieceTokenizer.load(tmp_path / "t5.json").fingerprint == t5.fingerprint
    marian[0].save(tmp_path / "marian.json")
    plain = json.loads((tmp_path / "marian.json").read_text())
    old = {name: plain[name] for name in ("kind", "source", "target", "ids", "roles")}
    (tmp_path / "marian.json").write_text(json.dumps({**old, "extra": {}}))
    assert SentencePieceTokenizer.load(tmp_path / "marian.json").fingerprint == marian[0].fingerprint
