"""What is exported loads in the transformers package to the same outputs, and comes back."""

from pathlib import Path
from typing import Any

import pytest
import torch

import regard as rg
from regard.models.llama import Llama, LlamaConfig
from regard.models.marian import to_marian
from regard.models.seq2seq import Vocabulary
from regard.models.t5 import T5, T5Config
from regard.tasks.completer import Completer
from tests.checkpoints.language_models import byte_level, gpt2_folder
from tests.checkpoints.made import transformer
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


def test_a_marian_goes_out(tmp_path: Path) -> None:
    made = transformer()
    rg.export_hf(made, tmp_path)
    theirs = transformers.MarianMTModel.from_pretrained(tmp_path).eval()
    source, target = torch.randint(3, 50, (2, 5)), torch.randint(3, 50, (2, 4))
    expected = theirs(input_ids=source, decoder_input_ids=target).logits
    torch.testing.assert_close(made(source, None, target).logits, expected, rtol=0, atol=1e-5)
    assert set(to_marian(made)[0]) <= set(theirs.config.to_dict())


def test_a_gpt_goes_out_and_comes_back(tmp_path: Path) -> None:
    made = rg.load(gpt2_folder(tmp_path / "gpt2"))
    check_language_model(made, transformers.GPT2LMHeadModel, tmp_path / "out")


@pytest.mark.parametrize("changes", [{}, {"windows": (3, 3)}, {"projection_bias": True, "windows": (None, 3)}])
def test_a_llama_goes_out_and_comes_back(changes: dict[str, Any], tmp_path: Path) -> None:
    words = Vocabulary(size=byte_level().size + 5, pad=0, bos=0, eos=0)
    sizes = {"embed_dim": 16, "num_heads": 4, "num_kv_heads": 2, "head_dim": 4, "hidden_dim": 24, "layers": 2}
    torch.manual_seed(0)
    model = Llama(LlamaConfig(vocabulary=words, max_length=40, **sizes, **changes)).eval()
    check_language_model(Completer(model, byte_level()), transformers.AutoModelForCausalLM, tmp_path)


def check_language_model(made: Completer, auto: Any, folder: Path) -> None:
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
    sizes = {"embed_dim": 16, "num_heads": 2, "head_dim": 8, "hidden_dim": 24, "encoder_layers": 2, "decoder_layers": 1}
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
