"""What is exported loads in the transformers package to the same outputs, and comes back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import regard as rg
from regard.models.gpt import GPT, GPTConfig
from regard.models.llama import Llama, LlamaConfig
from regard.models.marian import to_marian
from regard.models.seq2seq import Vocabulary
from regard.models.t5 import T5, T5Config
from regard.models.transformer import Transformer, TransformerConfig
from regard.tasks.complete import TextGenerator
from regard.tasks.translate import Translator
from tests.checkpoints.language_models import byte_level, gpt2_folder
from tests.checkpoints.made import tokenizer, transformer
from tests.checkpoints.published import WORDS, encoder, write_bert

transformers = pytest.importorskip("transformers")

KINDS: list[dict[str, Any]] = [
    {},
    {"masked_words": False, "pooler": True},
    {"tied": False, "activation": "gelu-tanh", "head_activation": "gelu-tanh"},
    {"family": "roberta", "pad": 0, "max_positions": 12},
    {"family": "roberta", "pad": 0, "max_positions": 12, "tied": False},
    {"family": "distilbert", "num_token_types": None},
    {"family": "distilbert", "num_token_types": None, "tied": False},
]


@pytest.mark.parametrize("changes", KINDS)
def test_an_encoder_goes_out_and_comes_back(changes: dict[str, Any], tmp_path: Path) -> None:
    made = encoder(**changes)
    rg.export_hf(made, tmp_path)
    auto = transformers.AutoModelForMaskedLM if made.module.head is not None else transformers.AutoModel
    theirs = auto.from_pretrained(tmp_path).eval()
    text = "the cats sat on a mat ."
    given = transformers.AutoTokenizer.from_pretrained(tmp_path)(text, return_tensors="pt")
    ids = given["input_ids"]
    assert ids[0].tolist() == made.tokenizer.encode(text, marks=True)
    expected = theirs(input_ids=ids)
    ours = made.module(ids)
    again = rg.load(tmp_path)
    for found in (ours, again.module(ids)):
        if made.module.head is None:
            torch.testing.assert_close(found.hidden, expected.last_hidden_state, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(found.pooled, expected.pooler_output, rtol=1e-5, atol=1e-5)
        else:
            torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    assert again.tokenizer.roles == made.tokenizer.roles
    assert again.module.config == made.module.config


SENTENCES_TO_TRY = [
    "This package contains the documentation.",
    "The library reads files",
    "<s> is no mark here, </s> neither; é, \u6f22 and   spaces",
]


PEGASUS = "PegasusForConditionalGeneration"
OWN_TRANSLATORS: list[tuple[dict[str, Any], str]] = [
    ({}, "MarianMTModel"),
    ({"norm": "pre"}, PEGASUS),
    ({"norm": "pre", "activation": "swish", "positions": "sinusoidal-halves", "output_bias": True}, PEGASUS),
    ({"norm": "pre", "activation": "gelu-tanh", "scale_embedding": False, "encoder_layers": 2}, PEGASUS),
]


@pytest.mark.parametrize(("changes", "title"), OWN_TRANSLATORS)
def test_ones_own_translator_goes_out_and_comes_back(changes: dict[str, Any], title: str, tmp_path: Path) -> None:
    sizes = {"embed_dim": 16, "num_heads": 2, "ffn_dim": 32, "encoder_layers": 1, "decoder_layers": 2}
    torch.manual_seed(0)
    module = Transformer(TransformerConfig(vocabulary=Vocabulary(size=tokenizer().size), **{**sizes, **changes})).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        if module.output_bias is not None:
            module.output_bias[2] += 2.0
    made = Translator(module, tokenizer(), {"training": {"max_tokens": 24, "usual_tokens": 20}})
    check_translator(made, title, tmp_path)


def test_the_shipped_translator_goes_out_and_comes_back(tmp_path: Path) -> None:
    check_translator(rg.load(), "PegasusForConditionalGeneration", tmp_path)


def check_translator(made: Translator, title: str, folder: Path) -> None:
    """Texts through their tokenizer, model and search, and through ours when it is back."""
    rg.export_hf(made, folder)
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)
    again = rg.load(folder)
    assert type(theirs).__name__ == title
    assert again.module.config.vocabulary == made.module.config.vocabulary
    assert (again.max_source_length, again.split_length) == (made.max_source_length, made.split_length)
    assert words.model_max_length == made.max_source_length
    target = torch.tensor([[made.module.vocabulary.bos, *made.tokenizer.encode("The library")]])
    limit = made.max_source_length  # so that nothing is cut at different lengths
    for text in SENTENCES_TO_TRY:
        ids = words(text, return_tensors="pt")["input_ids"]
        assert ids[0].tolist() == [*made.tokenizer.encode(text), made.module.vocabulary.eos]
        with torch.no_grad():
            expected = theirs(input_ids=ids, decoder_input_ids=target).logits
            for one in (made, again):
                found = one.module(ids, None, target).logits
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))
        for search in (rg.Greedy(), rg.Beam(), rg.Beam(3, length_penalty=0.3)):
            how = {"num_beams": 1} if search == rg.Greedy() else {}  # that of the folder
            if search == rg.Beam(3, length_penalty=0.3):
                how = {"num_beams": 3, "length_penalty": 0.3}
            tokens = theirs.generate(ids, max_new_tokens=limit, max_length=None, **how)[0, 1:].tolist()
            [[one]] = rg.generate(made.module, [made.tokenizer.encode(text)], search=search, max_length=limit)
            assert one.tokens == tokens[: tokens.index(2) if 2 in tokens else None]
            assert words.decode(tokens, skip_special_tokens=True) == made.tokenizer.decode(one.tokens)
            [mine], [back] = made.translate([text], search=search), again.translate([text], search=search)
            assert back.candidates[0].tokens == mine.candidates[0].tokens
            assert back.score == pytest.approx(mine.score, abs=1e-5)
        assert str(made.translate([text])[0]) == str(again.translate([text])[0])


def test_ones_own_gpt_goes_out_and_comes_back(tmp_path: Path) -> None:
    sizes = {"embed_dim": 16, "num_heads": 2, "num_layers": 2, "max_length": 40}
    torch.manual_seed(0)
    words = Vocabulary(size=tokenizer().size)
    made = TextGenerator(GPT(GPTConfig(vocabulary=words, **sizes)).eval(), tokenizer())
    with torch.no_grad():
        for parameter in made.module.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    rg.export_hf(made, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    read = transformers.AutoTokenizer.from_pretrained(tmp_path)
    again = rg.load(tmp_path)
    assert again.module.config == made.module.config
    for text in SENTENCES_TO_TRY[1:2]:
        ids = read(text, return_tensors="pt")["input_ids"]
        assert ids[0].tolist() == [words.bos, *made.tokenizer.encode(text)]
        with torch.no_grad():
            expected = theirs(ids).logits
        for one in (made, again):
            torch.testing.assert_close(one.module(ids).logits, expected, rtol=0, atol=1e-5)
        tokens = theirs.generate(ids, max_new_tokens=9)[0, ids.shape[1] :].tolist()
        [found] = made.complete([text], max_new_tokens=9)
        assert found.candidates[0].tokens == tokens[: tokens.index(2) if 2 in tokens else None]
        assert again.complete([text]) == made.complete([text])


def test_a_published_search_goes_out_again(tmp_path: Path) -> None:
    folder = gpt2_folder(tmp_path / "gpt2")
    said = {"do_sample": True, "temperature": 0.7, "top_k": 9, "eos_token_id": [0, 5], "max_new_tokens": 7}
    said["bad_words_ids"] = [[3], [4, 5]]
    (folder / "generation_config.json").write_text(json.dumps(said))
    config = json.loads((folder / "config.json").read_text())
    tasks = {"text-generation": {"temperature": 0.5, "max_length": 9}}
    (folder / "config.json").write_text(json.dumps({**config, "task_specific_params": tasks}))
    made = rg.load(folder)
    rg.export_hf(made, tmp_path / "out")
    again = rg.load(tmp_path / "out")
    assert again.module.config == made.module.config
    assert again.generation_config() == made.generation_config()
    assert again.generation_config("text-generation") == made.generation_config("text-generation")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config.to_dict()
    assert {name: theirs[name] for name in said} == said


def test_a_module_alone_goes_out(tmp_path: Path) -> None:
    made = transformer()
    rg.export_hf(made, tmp_path)
    theirs = transformers.MarianMTModel.from_pretrained(tmp_path).eval()
    source, target = torch.randint(3, 50, (2, 5)), torch.randint(3, 50, (2, 4))
    expected = theirs(input_ids=source, decoder_input_ids=target).logits
    torch.testing.assert_close(made(source, None, target).logits, expected, rtol=0, atol=1e-5)
    assert set(to_marian(made)[0]) <= set(theirs.config.to_dict())
    assert theirs.generation_config.eos_token_id == 2


def test_a_gpt_goes_out_and_comes_back(tmp_path: Path) -> None:
    made = rg.load(gpt2_folder(tmp_path / "gpt2"))
    check_language_model(made, transformers.GPT2LMHeadModel, tmp_path / "out")


@pytest.mark.parametrize("changes", [{}, {"windows": (3, 3)}, {"projection_bias": True, "windows": (None, 3)}])
def test_a_llama_goes_out_and_comes_back(changes: dict[str, Any], tmp_path: Path) -> None:
    words = Vocabulary(size=byte_level().size + 5, pad=0, bos=0, eos=0)
    sizes = {"embed_dim": 16, "num_heads": 4, "num_kv_heads": 2, "head_dim": 4, "ffn_dim": 24, "num_layers": 2}
    torch.manual_seed(0)
    model = Llama(LlamaConfig(vocabulary=words, max_length=40, **sizes, **changes)).eval()
    check_language_model(TextGenerator(model, byte_level()), transformers.AutoModelForCausalLM, tmp_path)


def check_language_model(made: TextGenerator, auto: Any, folder: Path) -> None:
    """Text through their tokenizer and their model, and through ours when it is back."""
    rg.export_hf(made, folder)
    text = "The library reads files."
    ids = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    assert ids[0].tolist() == made.tokenizer.encode(text)
    with torch.no_grad():
        expected = auto.from_pretrained(folder).eval()(ids).logits
        again = rg.load(folder)
        for one in (made, again):
            torch.testing.assert_close(one.module(ids).logits, expected, rtol=1e-5, atol=1e-5)
    assert again.module.config == made.module.config
    assert again.complete([text], max_new_tokens=5) == made.complete([text], max_new_tokens=5)


def test_a_t5_goes_out_and_comes_back(tmp_path: Path) -> None:
    vocabulary = Vocabulary(size=50, pad=0, bos=0, eos=1)
    sizes = {"embed_dim": 16, "num_heads": 2, "head_dim": 8, "ffn_dim": 24, "encoder_layers": 2, "decoder_layers": 1}
    for network in ("plain", "gated"):
        torch.manual_seed(0)
        made = T5(T5Config(vocabulary=vocabulary, network=network, **sizes)).eval()
        rg.export_hf(made, tmp_path / network)
        theirs = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / network).eval()
        source, target = torch.randint(2, 50, (2, 5)), torch.randint(2, 50, (2, 4))
        with torch.no_grad():
            expected = theirs(input_ids=source, decoder_input_ids=target).logits
            for one in (made, rg.load(tmp_path / network).module):
                torch.testing.assert_close(one(source, None, target).logits, expected, rtol=1e-5, atol=1e-5)


def test_regards_own_folder(tmp_path: Path) -> None:
    first = rg.load(write_bert(tmp_path / "hub", pooler=True))
    first.save(tmp_path / "own")
    again = rg.load(tmp_path / "own")
    texts = ["the cat sat", "a mat ."]
    assert torch.equal(first.embed(texts), again.embed(texts))
    assert first.fill(["the [MASK] sat"]) == again.fill(["the [MASK] sat"])
    assert again.module.config.vocab_size == len(WORDS)
