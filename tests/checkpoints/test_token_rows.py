"""Tokens that were added to a tokenizer and not to its model: one error that names the token, in whatever is asked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import regard as rg
from regard.cli.main import main
from regard.errors import DataError
from regard.models.llama_names import to_llama
from regard.models.marian import to_marian
from regard.models.t5_names import to_t5
from tests.checkpoints.published import WORDS, write_bert, write_hub
from tests.parity import tokenizer_folders as made

SIZES = {"embed_dim": 20, "num_heads": 2, "ffn_dim": 28, "encoder_layers": 1, "decoder_layers": 1}
NEW = "<NEW>"


def added(folder: Path, number: int) -> Path:
    (folder / "added_tokens.json").write_text(json.dumps({NEW: number}))
    return folder


def bert(folder: Path) -> Path:
    return added(write_bert(folder), len(WORDS))


def llama(folder: Path) -> Path:
    size = len(json.loads(made.llama_json())["model"]["vocab"])
    vocabulary = rg.Vocabulary(size=size, pad=0, bos=1, eos=2)
    sizes = {"embed_dim": 24, "num_layers": 1, "num_heads": 2, "ffn_dim": 28, "max_length": 64}
    write_hub(folder, *to_llama(rg.Llama(rg.LlamaConfig(vocabulary=vocabulary, **sizes))))
    (folder / "tokenizer.json").write_text(made.llama_json())
    return added(folder, size)


def t5(folder: Path) -> Path:
    vocabulary = rg.Vocabulary(size=400 + 100, pad=0, bos=0, eos=1)
    write_hub(folder, *to_t5(rg.T5(rg.T5Config(vocabulary=vocabulary, head_dim=5, **SIZES))))
    (folder / "spiece.model").write_bytes(made.spiece())
    return added(folder, 500)


def marian(folder: Path) -> Path:
    """Whose vocab.json itself has a language more than there are embeddings."""
    files = made.marian_files()
    files["vocab__json"][NEW] = size = len(files["vocab__json"])
    vocabulary = rg.Vocabulary(size=size, pad=size - 1, bos=size - 1, eos=0)
    write_hub(folder, *to_marian(rg.Transformer(rg.TransformerConfig(vocabulary=vocabulary, **SIZES))))
    for side in ("source", "target"):
        (folder / f"{side}.spm").write_bytes(files[f"{side}__spm"])
    (folder / "vocab.json").write_text(json.dumps(files["vocab__json"]))
    (folder / "tokenizer_config.json").write_text(json.dumps({"additional_special_tokens": [NEW]}))
    return folder


ENCODER = {
    "embed": lambda model: model.embed(["the cat", f"the {NEW} cat"]),
    "fill": lambda model: model.fill([f"the {NEW} [MASK]"]),
    "see": lambda model: model.see(f"the {NEW} cat"),
}
COMPLETER = {"complete": lambda model: model.complete([f"a {NEW}"]), "see": lambda model: model.see(f"a {NEW} b")}
TRANSLATOR = {
    "translate": lambda model: model.translate([f"a {NEW} b"], search=rg.Greedy()),
    "see": lambda model: model.see(f"a {NEW} b", "a"),
    "see a target": lambda model: model.see("a b", f"a {NEW}"),
    "evaluate": lambda model: model.evaluate([(f"a {NEW}", "a")]),
}
CASES = [
    pytest.param(make, call, id=f"{make.__name__}, {name}")
    for make, calls in ((bert, ENCODER), (llama, COMPLETER), (t5, TRANSLATOR), (marian, TRANSLATOR))
    for name, call in calls.items()
]


@pytest.mark.parametrize(("make", "call"), CASES)
def test_a_text_with_the_token_is_refused(
    make: Callable[[Path], Path], call: Callable[[Any], object], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = rg.load(make(tmp_path / "model"))
    rows, size = model.tokenizer.rows, model.tokenizer.size
    assert size == rows + 1
    for loaded in (model, _saved(model, tmp_path / "saved")):
        with pytest.raises(DataError) as caught:
            call(loaded)
        assert f"has the token '{NEW}' with id {rows}" in str(caught.value)
        assert f"the model has embeddings for {rows} tokens, ids 0 to {rows - 1}" in str(caught.value)


def _saved(model: Any, folder: Path) -> Any:
    model.save(folder)
    return rg.load(folder)


def test_texts_without_it_are_read(tmp_path: Path) -> None:
    """Also where the token is that of padding, as in a fine-tuned GPT-2, and texts of two lengths are padded."""
    folder = bert(tmp_path / "bert")
    plain = rg.load(folder).embed(["the cat", "the cat sat on the mat"])
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": NEW}))
    encoder = rg.load(folder)
    assert (encoder.tokenizer.role("pad"), encoder.tokenizer.pad) == (len(WORDS), None)
    torch.testing.assert_close(encoder.embed(["the cat", "the cat sat on the mat"]), plain)


def test_the_command_line_says_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["embed", f"the {NEW} cat", "--model", str(bert(tmp_path / "bert"))])
    assert result.exit_code != 0
    assert f"has the token '{NEW}'" in result.stderr
    assert "Traceback" not in result.stderr
