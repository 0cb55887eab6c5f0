"""Folders of T5 and Marian in the hub's layout, with their vocabularies: loaded, run, looked at, saved."""

import json
import shutil
import warnings

import pytest
import torch
from click.testing import CliRunner

import regard as rg
from regard.checkpoints.generation import GenerationConfig
from regard.cli.main import main
from regard.data.sentencepiece_tokenizer import SentencePieceTokenizer
from regard.decode.constraints import Constraints
from regard.decode.generate import generate
from regard.errors import DataError, UnsupportedError
from regard.models.marian import to_marian
from regard.models.t5_names import to_t5
from tests.checkpoints.published import write_hub
from tests.data.mixed_text import trained

sentencepiece = pytest.importorskip("sentencepiece")

SIZES = {"embed_dim": 20, "num_heads": 2, "ffn_dim": 28, "encoder_layers": 2, "decoder_layers": 2}
TEXTS = ["wide full, e\u0301", "aaaa </s> bcd 123", "\u30ab\u30ac \u1100\u1161"]


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    """A T5 whose embedding has more rows than there are tokens, as published ones have."""
    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(2)
    vocabulary = rg.Vocabulary(size=720, pad=0, bos=0, eos=1)
    fields, state = to_t5(rg.T5(rg.T5Config(vocabulary=vocabulary, head_dim=5, **SIZES)))
    write_hub(folder, fields, state)
    model = trained(pad_id=0, eos_id=1, unk_id=2, bos_id=-1, vocab_size=700)
    (folder / "spiece.model").write_bytes(model)
    (folder / "tokenizer_config.json").write_text(json.dumps({"extra_ids": 7, "eos_token": "</s>"}))
    return folder


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    folder = tmp_path_factory.mktemp("marian")
    model = trained(vocab_size=700)
    (folder / "source.spm").write_bytes(model)
    (folder / "target.spm").write_bytes(model)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokens = ["</s>", "<unk>", *(processor.id_to_piece(i) for i in range(3, 700)), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    torch.manual_seed(3)
    vocabulary = rg.Vocabulary(size=len(tokens), pad=len(tokens) - 1, bos=len(tokens) - 1, eos=0)
    return write_hub(folder, *to_marian(rg.Transformer(rg.TransformerConfig(vocabulary=vocabulary, **SIZES))))


def test_they_load_run_and_come_back(t5, marian, tmp_path):
    for folder in (t5, marian):
        model = rg.load(folder)
        assert isinstance(model.tokenizer, SentencePieceTokenizer)
        found = model.translate(TEXTS, search=rg.Beam(3))
        assert [translation.source for translation in found] == TEXTS
        model.save(tmp_path / folder.name)
        again = rg.load(tmp_path / folder.name)
        assert [x.candidates for x in again.translate(TEXTS, search=rg.Beam(3))] == [x.candidates for x in found]


def test_they_go_out_with_their_vocabularies(t5, marian, tmp_path):
    transformers = pytest.importorskip("transformers")
    for folder in (t5, marian):
        model, out = rg.load(folder), tmp_path / folder.name
        rg.export_hf(model, out)
        again = rg.load(out)
        assert again.module.config == model.module.config
        assert again.generation_config() == model.generation_config()
        text = "wide <extra_id_3> full"
        assert again.tokenizer.encode(text) == model.tokenizer.encode(text)
        assert [str(x) for x in again.translate(TEXTS)] == [str(x) for x in model.translate(TEXTS)]
        with warnings.catch_warnings(action="ignore"):
            theirs = transformers.AutoTokenizer.from_pretrained(out)
        assert theirs("wide full")["input_ids"] == model.tokenizer.encode("wide full", marks=True)
        assert (theirs.pad_token_id, theirs.eos_token_id) == (model.tokenizer.pad, model.tokenizer.eos)


def test_they_can_be_seen(t5, marian):
    for folder in (t5, marian):
        seen = rg.load(folder).see("wide full", "bcd")
        assert seen.source == ["wide", "full", "[end]"]
        assert seen.target == ["bcd", "[end]"]
        assert seen.kinds == ["cross", "encoder", "decoder"]
        assert len(seen.layers("cross")) == 2


def test_transformers_translates_the_same(t5, marian):
    transformers = pytest.importorskip("transformers")
    for folder, theirs in ((t5, transformers.T5ForConditionalGeneration), (marian, transformers.MarianMTModel)):
        ours = rg.load(folder)
        with warnings.catch_warnings(action="ignore"):
            model = theirs.from_pretrained(folder).eval()
        sources = ours.tokenizer.encode_batch(TEXTS)
        for source, [found] in zip(
            sources, generate(ours.module, sources, search=rg.Greedy(), max_length=9), strict=True
        ):
            expected = model.generate(
                torch.tensor([[*source, ours.tokenizer.eos]]), num_beams=1, do_sample=False, max_new_tokens=9,
                forced_eos_token_id=None,
            )  # fmt: skip
            expected = [i for i in expected[0, 1:].tolist() if i != ours.tokenizer.eos]
            assert found.tokens == expected
            assert expected


def test_tasks_and_prefixes(t5, tmp_path):
    config = json.loads((t5 / "config.json").read_text())
    task = {"prefix": "wide full: ", "num_beams": 3, "early_stopping": True, "max_length": 6, "length_penalty": 0.5}
    summaries = {"prefix": "a: ", "no_repeat_ngram_size": 3, "max_length": 7, "min_length": 3}
    params = {"translation": task, "summarization": summaries, "other": {"encoder_no_repeat_ngram_size": 3}}
    folder = tmp_path / "t5"
    shutil.copytree(t5, folder)
    (folder / "config.json").write_text(json.dumps({**config, "task_specific_params": params}))
    (folder / "generation_config.json").write_text(json.dumps({"num_beams": 2, "max_length": 9}))
    model = rg.load(folder)
    assert model.generation_config() == GenerationConfig(search=rg.Beam(2), max_length=9)
    assert model.generation_config("translation") == GenerationConfig(
        search=rg.Beam(3, length_penalty=0.5, early_stopping=True), max_length=6, prefix="wide full: "
    )
    rules = Constraints(no_repeat_ngram_size=3, min_length=3)
    assert model.generation_config("summarization") == GenerationConfig(
        search=rg.Beam(2), constraints=rules, max_length=7, prefix="a: "
    )
    [by_task] = model.translate(["bcd"], task="translation")
    [by_hand] = generate(
        model.module,
        [model.tokenizer.encode("wide full: bcd")],
        search=model.generation_config("translation").search,
        max_length=5,
    )
    assert by_task.source == "bcd"
    assert by_task.candidates[0].tokens == [by_hand[0].tokens]
    [plain] = model.translate(["bcd"])
    assert len(plain.candidates[0].tokens[0]) <= 8
    with pytest.raises(UnsupportedError, match="encoder_no_repeat_ngram_size=3"):
        model.translate(["bcd"], task="other")
    for search in (rg.Greedy(), rg.Beam(2), rg.Sample(seed=1)):  # the search is one's own; all else is the task's
        [summary] = model.translate(["bcd"], task="summarization", search=search)
        [by_hand] = generate(
            model.module, [model.tokenizer.encode("a: bcd")], search=search, constraints=rules, max_length=6
        )
        assert summary.candidates[0].tokens == [by_hand[0].tokens]
        assert len(by_hand[0].tokens) >= 2
    model.translate(["bcd"], task="other", search=rg.Greedy())
    [chosen] = model.translate(["bcd"], search=rg.Greedy(), prefix="a: ")
    assert chosen.source == "bcd"
    assert model.see("bcd", "ab", task="translation").source == ["wide", "full:", "bcd", "[end]"]
    found = run("translate", "bcd", "--model", str(folder), "--task", "translation")
    assert found.stdout == f"{by_task.text}\n"
    found = run("translate", "bcd", "--model", str(folder), "--prefix", "a: ", "--greedy")
    assert found.stdout == f"{chosen.text}\n"
    (tmp_path / "pairs.tsv").write_text("bcd\tabc\n")
    words = ["evaluate", str(tmp_path / "pairs.tsv"), "--model", str(folder), "--json"]
    assert json.loads(run(*words).stdout)["search"] == repr(rg.Beam(2))
    found = json.loads(run(*words, "--task", "translation", "--greedy").stdout)
    assert found["search"] == "Greedy()"
    expected = model.translate(["bcd"], task="translation", search=rg.Greedy())[0].candidates[0].tokens
    assert found["tokens"] == len(expected[0]) + 1


def run(*words):
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return result


def test_marians_language_is_read_before_each_piece(marian, tmp_path):
    folder = tmp_path / "marian"
    shutil.copytree(marian, folder)
    ids = json.loads((folder / "vocab.json").read_text())
    language = ">>fra<<"
    ids = {language if i == 5 else token: i for token, i in ids.items()}
    (folder / "vocab.json").write_text(json.dumps(ids))
    model = rg.load(folder)
    text = "wide full, bcd. Bcd wide full. " * 60
    [found] = model.translate([f" {language} {text}"], search=rg.Greedy(), max_length=4)
    sources = [[5, *model.tokenizer.encode(piece.text)] for piece in found.pieces]
    assert len(sources) > 2
    assert all(len(source) < model.max_source_length for source in sources)
    expected = generate(model.module, sources, search=rg.Greedy(), max_length=4)
    assert found.candidates[0].tokens == [one.tokens for [one] in expected]
    links = [tuple(map(int, link.split("-"))) for link in model.align(found).split()]
    assert all(0 < source < len(found.source.split()) for source, _ in links)  # 0 is the language
    assert model.see(f"{language} bcd", "ab").source == [language, "bcd", "[end]"]


def test_t5_reads_a_text_whole_and_splits_what_it_translates(t5):
    model = rg.load(t5)
    assert (model.max_source_length, model.whole) == (512, True)
    text = "wide full, bcd. Bcd wide full. " * 60
    tokens = len(model.tokenizer.encode(text))
    assert 512 < tokens < 4096
    for how in ({"texts": [f"summarize: {text}"]}, {"texts": [text], "prefix": "summarize: "}, {"texts": [text]}):
        [found] = model.translate(**how, search=rg.Greedy(), max_length=3)
        assert len(found.pieces) == 1
    task = "translate English to German: "
    [found], [other] = (
        model.translate([before + text], search=rg.Greedy(), max_length=3, prefix=prefix)
        for before, prefix in ((task, ""), ("", task))
    )
    assert found[1:] == other[1:]
    assert len(found.pieces) > 1
    sources = [model.tokenizer.encode(task + piece.text) for piece in found.pieces]
    assert all(len(source) < 512 for source in sources)
    expected = generate(model.module, sources, search=rg.Greedy(), max_length=3)
    assert found.candidates[0].tokens == [one.tokens for [one] in expected]
    with pytest.raises(DataError, match=r"text 1 has .* tokens and is read whole"):
        model.translate([text * 9], search=rg.Greedy())


def test_odd_characters_that_a_vocabulary_lacks_are_not_read(t5, marian):
    """Those that it has are read as its own normalizer reads them: a zero-width space here as a space."""
    for folder in (t5, marian):
        model = rg.load(folder)
        plain, soft, space, zero = "wide full", "wi\u00adde \u2060full", "wide\u00a0full", "wi\u200bde full"
        assert model.tokenizer.role("unk") in model.tokenizer.encode(soft)
        found = model.translate([plain, soft, space, zero, "wi de full"], search=rg.Greedy(), max_length=5)
        assert found[0].candidates == found[1].candidates == found[2].candidates
        assert found[3].candidates == found[4].candidates
        assert [str(one) for one in model.translate(["\u00ad", "\ufeff", " \u2060 "], search=rg.Greedy())] == [""] * 3
        assert model.see(soft, "bcd").source == ["wide", "full", "[end]"]
