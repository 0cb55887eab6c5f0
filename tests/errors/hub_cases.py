"""Published checkpoints that are not what they should be: see `cases.py`."""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import regard as rg
from regard.checkpoints.folder import save
from regard.checkpoints.hub import download
from regard.checkpoints.settings import family_of
from regard.data.published_tokenizer import PublishedTokenizer
from regard.data.vocabulary_files import read_word_piece
from regard.errors import CheckpointError, ConfigError, DataError, UnsupportedError
from regard.models.published import TensorName, activation_of, check_supported, load_tensors
from tests.checkpoints.made import transformer
from tests.checkpoints.published import ROLES, marian, shard, word_pieces, write_bert


def loading(change: Callable[[Path], object], make: Callable[[Path], Path] = marian) -> Callable[[], object]:
    """Load a published checkpoint after a change to its files."""

    def call() -> object:
        with tempfile.TemporaryDirectory() as name:
            folder = make(Path(name, "snapshots", "model"))
            change(folder)
            return rg.load(folder)

    return call


def fields(**changes: Any) -> Callable[[Path], object]:
    """Other fields in config.json; None takes one out."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        config = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({name: x for name, x in config.items() if x is not None}))

    return change


def index(**changes: str) -> Callable[[Path], object]:
    """Other files in the index; the shards stay."""

    def change(folder: Path) -> None:
        path = shard(folder) / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        index["weight_map"].update(changes)
        path.write_text(json.dumps(index))

    return change


def beyond() -> object:
    """A text with a token that was added to the tokenizer and not to the model."""
    return loading(text("added_tokens.json", '{"<new>": 14}'), write_bert)().embed(["the <new> cat"])  # type: ignore[attr-defined]


def text(name: str, content: str, then: Callable[[Path], object] = lambda folder: None) -> Callable[[Path], object]:
    """Another file in the folder, then one more change."""
    return lambda folder: [(folder / name).write_text(content), then(folder)]


def linked(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere")
    (folder / "model.safetensors").symlink_to(folder.parent / "elsewhere")


def own(described: Any) -> object:
    """Load a folder of regard's own whose config.json describes a tokenizer so."""
    with tempfile.TemporaryDirectory() as folder:
        save(folder, transformer(), None, {}, task="translate")
        fields(tokenizer=described)(Path(folder))
        return rg.load(folder)


def without(package: str, call: Callable[[], object]) -> Callable[[], object]:
    """As where a package is not installed."""

    def run() -> object:
        with mock.patch.dict(sys.modules, {package: None}):
            return call()

    return run


def offline() -> object:
    """As where the hub cannot be reached."""
    import huggingface_hub

    with mock.patch.object(huggingface_hub, "snapshot_download", side_effect=ConnectionError("no network\nat all")):
        return download("somebody/some-model")


CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "hub-field",
        lambda: check_supported("X", {"a": 3}, {"a": (1, 2)}),
        UnsupportedError,
        "X: a=3 is not supported; expected 1 or 2",
    ),
    ("hub-activation", lambda: activation_of("X", {"act": "gelo"}, "act"), UnsupportedError, "X: act='gelo' is not"),
    (
        "hub-sizes",
        lambda: load_tensors("X", lambda: rg.MultiHeadAttention(8, 3), {}, []),
        CheckpointError,
        "X: no model can be built from the configuration: MultiHeadAttention: embed_dim=8 is not a multiple of",
    ),
    (
        "hub-tensors",
        lambda: load_tensors("X", lambda: None, {}, [TensorName("a", "b")]),
        CheckpointError,
        "X: the tensors do not match the configuration: missing: b",
    ),
    (
        "hub-family",
        loading(fields(model_type="marien")),
        CheckpointError,
        "config.json: unknown model_type 'marien'; did you mean 'marian'?",
    ),
    (
        "hub-no-family",
        lambda: family_of({"hidden_size": 3}, Path("config.json")),
        CheckpointError,
        'config.json has neither a "model_type", as published checkpoints, nor a "format", as those of regard; add',
    ),
    (
        "hub-vocabulary",
        loading(
            text(
                "spiece.model",
                "",
                fields(model_type="pegasus", decoder_vocab_size=None, share_encoder_decoder_embeddings=None),
            )
        ),
        UnsupportedError,
        "spiece.model: original vocabularies of Pegasus are not supported; expected only tokenizer.json, as",
    ),
    (
        "hub-field-unknown",
        loading(fields(alibi=True)),
        UnsupportedError,
        "config.json: unknown field alibi=True of Marian, which may change what is computed. If it changes nothing",
    ),
    (
        "hub-generation-unknown",
        loading(text("generation_config.json", '{"tempo": 3}')),
        UnsupportedError,
        "generation_config.json: unknown field tempo=3 of generation, which may change what is computed. If it changes",
    ),
    (
        "hub-field-twice",
        loading(fields(num_hidden_layers=7)),
        UnsupportedError,
        "config.json: num_hidden_layers=7 and encoder_layers=1 are the same field of Marian; expected equal values, or",
    ),
    (
        "hub-ends",
        loading(text("generation_config.json", '{"eos_token_id": 7}')),
        UnsupportedError,
        "generation_config.json: eos_token_id=7 without config.json's 2, which ends sources, is not supported",
    ),
    (
        "hub-field-missing",
        loading(fields(vocab_size=None)),
        CheckpointError,
        "config.json lacks the field 'vocab_size'",
    ),
    (
        "hub-field-wrong",
        loading(fields(d_model="wide")),
        CheckpointError,
        "config.json does not describe a model: TransformerConfig: embed_dim='wide' must be an integer >= 1, and below",
    ),
    (
        "hub-not-installed",
        without("huggingface_hub", lambda: rg.load("somebody/some-model")),
        CheckpointError,
        "somebody/some-model does not exist; expected the folder of a model. To download a model of this name from the",
    ),
    (
        "hub-offline",
        offline,
        CheckpointError,
        "somebody/some-model does not exist; expected the folder of a model. Nor can a model of this name be",
    ),
    (
        "hub-index-list",
        loading(lambda folder: text("model.safetensors.index.json", '{"weight_map": [1]}')(shard(folder))),
        CheckpointError,
        '"weight_map" is [1]; expected the file of each tensor by name',
    ),
    (
        "hub-index-path",
        loading(index(lm_head="../../model.safetensors")),
        CheckpointError,
        "model.safetensors.index.json has the file name '../../model.safetensors'; expected safetensors files in the",
    ),
    (
        "hub-index-lost",
        loading(index(lm_head="model-1.safetensors")),
        CheckpointError,
        "model.safetensors.index.json does not match the files beside it: missing: lm_head in model-1.safetensors",
    ),
    (
        "hub-link",
        loading(linked),
        CheckpointError,
        "elsewhere, outside of the folder; replace it by a copy of the file",
    ),
    (
        "hub-tokenizer-added",
        loading(text("added_tokens.json", '{"<new>": 7}'), write_bert),
        CheckpointError,
        "model: the token '<new>' has the id 7 in the tokenizer's files, but 14 in the vocabulary",
    ),
    (
        "hub-tokenizer-class",
        loading(text("tokenizer_config.json", '{"tokenizer_class": "BertJapaneseTokenizer"}'), write_bert),
        UnsupportedError,
        "model: tokenizer_class='BertJapaneseTokenizer' is not supported; expected a tokenizer.json in the folder, or",
    ),
    (
        "hub-tokenizer-files",
        loading(text("vocab.json", "{}")),
        CheckpointError,
        "model has no source.spm and no target.spm, and no tokenizer.json; its vocabulary files are vocab.json",
    ),
    (
        "hub-tokenizer-token",
        loading(text("tokenizer_config.json", '{"mask_token": 5}'), write_bert),
        CheckpointError,
        "model: mask_token is 5; expected a string, or an object with content and flags",
    ),
    (
        "hub-tokenizer-id",
        loading(text("added_tokens.json", '{"<new>": "x"}'), write_bert),
        CheckpointError,
        "model: a token has the id 'x'; expected an integer >= 0",
    ),
    (
        "hub-tokenizer-field",
        loading(text("tokenizer_config.json", '{"rewrites": "tweets"}'), write_bert),
        UnsupportedError,
        "tokenizer_config.json: unknown field rewrites='tweets', which may change how texts are tokenized. If it does",
    ),
    (
        "hub-tokenizer-refused",
        loading(text("tokenizer_config.json", '{"split_special_tokens": true}'), write_bert),
        UnsupportedError,
        "tokenizer_config.json: split_special_tokens=True is not supported (special tokens in a text are not split)",
    ),
    (
        "hub-tokenizer-rows",
        beyond,
        DataError,
        "text 1 has the token '<new>' with id 14, and the model has embeddings for 14 tokens, ids 0 to 13: the",
    ),
    (
        "tokenizer-role",
        lambda: PublishedTokenizer(word_pieces()._subwords, {"masc": "a"}),
        ConfigError,
        "role 'masc'; did",
    ),
    (
        "tokenizer-role-token",
        lambda: PublishedTokenizer(word_pieces()._subwords, {"mask": "<m>"}),
        ConfigError,
        "tokenizer: '<m>', the token for mask, is not in the vocabulary",
    ),
    ("tokenizer-no-text", lambda: word_pieces().encode("\ud800"), DataError, "'\\ud800' is not text"),
    ("tokenizer-file-missing", lambda: read_word_piece("/nowhere/vocab.txt", ROLES), CheckpointError, "(No such file"),
    (
        "tokenizer-file-damaged",
        lambda: PublishedTokenizer.load(__file__, ROLES),
        CheckpointError,
        "hub_cases.py is damaged, or no tokenizer that is known here: ",
    ),
    ("trained-tokenizer-described", lambda: own({"roles": 3}), CheckpointError, 'expected {"roles": {role: token}}'),
    (
        "hub-modules-object",
        loading(text("modules.json", "{}"), write_bert),
        CheckpointError,
        "modules.json holds {}; expected a list",
    ),
]
