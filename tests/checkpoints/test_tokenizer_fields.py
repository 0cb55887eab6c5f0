"""Every field of a published tokenizer's files is read, known to change nothing, or refused by name."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import regard as rg
from regard.checkpoints.tokenizer_fields import TOKENIZER_CONFIG
from regard.errors import UnsupportedError
from tests.checkpoints import tokenizer_table
from tests.checkpoints.published import write_bert

REFUSED = {name for name, field in TOKENIZER_CONFIG.items() if field.treatment == "refused"}


def load(folder: Path, file: str, **fields: Any) -> Any:
    (folder / file).write_text(json.dumps(fields))
    return rg.load(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bert(tmp_path / "bert")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused_is_named(name: str, folder: Path) -> None:
    with pytest.raises(UnsupportedError, match=rf"tokenizer_config\.json: {name}='other' is not supported"):
        load(folder, "tokenizer_config.json", **{name: "other"})
    load(folder, "tokenizer_config.json", **{name: TOKENIZER_CONFIG[name].accepted[0]})


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_a_field_that_is_not_known_is_refused_unless_it_says_nothing(file: str, folder: Path) -> None:
    with pytest.raises(UnsupportedError, match=rf"{file}: unknown field rewrites=\['x'\]"):
        load(folder, file, rewrites=["x"])
    for nothing in (None, False, "", [], {}):
        load(folder, file, rewrites=nothing)
    load(folder, file, pad_token_id=0, image_token="[IMAGE]", _commit_hash="abc", emoji_file="x.json")


def test_a_flag_of_a_token_that_is_not_known_is_refused(folder: Path) -> None:
    with pytest.raises(UnsupportedError, match="unknown field fuzzy=True"):
        load(folder, "tokenizer_config.json", mask_token={"content": "[MASK]", "fuzzy": True})


def test_what_changes_nothing_changes_nothing(folder: Path) -> None:
    plain = rg.load(folder).tokenizer.encode("The cat [MASK] on the mat.", marks=True)
    fields = {name: "x" for name, field in TOKENIZER_CONFIG.items() if field.treatment == "irrelevant"}
    assert (
        load(folder, "tokenizer_config.json", **fields).tokenizer.encode("The cat [MASK] on the mat.", marks=True)
        == plain
    )


def test_which_end_of_a_long_text_is_cut(folder: Path) -> None:
    ids = list(range(20, 30))
    for side, kept in (("right", ids[:3]), ("left", ids[-3:])):
        encoder = load(folder, "tokenizer_config.json", truncation_side=side)
        assert encoder.tokenizer.marked(ids, max_length=5) == [2, *kept, 3]
        assert encoder.tokenizer.marked(ids, max_length=2) == [2, 3]
        encoder.save(folder.parent / side)
        assert rg.load(folder.parent / side).tokenizer.marked(ids, max_length=5) == [2, *kept, 3]
        exported = encoder.tokenizer.files()["tokenizer_config.json"]
        assert json.loads(exported)["truncation_side"] == side


def test_every_argument_of_the_families_tokenizers_is_in_the_table() -> None:
    """Of the installed transformers: what it may write into tokenizer_config.json."""
    transformers = pytest.importorskip("transformers")
    named = {"Bert", "Roberta", "XLMRoberta", "GPT2", "Llama", "Qwen2", "T5", "Marian"}
    classes = [getattr(transformers, f"{name}Tokenizer") for name in named]
    arguments = {
        name
        for one in classes
        for base in one.__mro__
        if base.__module__.startswith("transformers") and "__init__" in vars(base)
        for name, argument in inspect.signature(base.__init__).parameters.items()
        if argument.kind is argument.POSITIONAL_OR_KEYWORD and not name.startswith("_")
    }
    files = {"self", "vocab", "merges", "source_spm", "target_spm"}  # which are never written
    assert arguments - files - set(TOKENIZER_CONFIG) == set()


def test_the_page_has_the_table() -> None:
    found = tokenizer_table.between(tokenizer_table.PAGE.read_text(encoding="utf-8"))
    assert found == tokenizer_table.table(), "run `python -m tests.checkpoints.tokenizer_table`"
