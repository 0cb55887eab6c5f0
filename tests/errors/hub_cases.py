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
        "X: the configuration describes no model that can be built: MultiHeadAttention: embed_dim=8 is not a multiple",
    ),
    (
        "hub-tensors",
        lambda: load_tensors("X", lambda: None, {}, [TensorName("a", "b")]),
        CheckpointError,
        "X: the tensors are not those of the configuration: missing: b",
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
        'config.json has no "model_type", which says what kind of published model it is, nor the "format" of one of',
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
        "spiece.model: the vocabulary of Pegasus's own checkpoints is not supported; expected tokenizer.json alone",
    ),
    (
        "hub-field-unknown",
        loading(fields(alibi=True)),
        UnsupportedError,
        "config.json: alibi=True is no field of Marian that regard knows, and may change what is computed",
    ),
    (
        "hub-generation-unknown",
        loading(text("generation_config.json", '{"tempo": 3}')),
        UnsupportedError,
        "generation_config.json: tempo=3 is no field of generation that regard knows",
    ),
    (
        "hub-field-twice",
        loading(fields(num_hidden_layers=7)),
        UnsupportedError,
        "num_hidden_layers=7 and encoder_layers=1 are one field of Marian; expected the same value, or one of them",
    ),
    (
        "hub-ends",
        loading(text("generation_config.json", '{"eos_token_id": 7}')),
        UnsupportedError,
        "eos_token_id=7 without config.json's 2, which ends sources, is not supported; expected that mark among them",
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
        "config.json describes no model: TransformerConfig: embed_dim='wide' must be an integer",
    ),
    (
        "hub-not-installed",
        without("huggingface_hub", lambda: rg.load("somebody/some-model")),
        CheckpointError,
        "somebody/some-model does not exist; expected the folder of a model. To get a model of this name",
    ),
    ("hub-offline", offline, CheckpointError, "does not give a model of this name either: no network at all"),
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
        "names the file '../../model.safetensors'; expected names of safetensors files beside it",
    ),
    (
        "hub-index-lost",
        loading(index(lm_head="model-1.safetensors")),
        CheckpointError,
        "does not say what the files beside it hold: missing: lm_head in model-1.safetensors",
    ),
    ("hub-link", loading(linked), CheckpointError, "elsewhere, outside of the folder; put a copy of the file in"),
    (
        "hub-tokenizer-added",
        loading(text("added_tokens.json", '{"<new>": 7}'), write_bert),
        CheckpointError,
        "the token '<new>' is said to be 7, and the vocabulary makes it 14",
    ),
    (
        "hub-tokenizer-class",
        loading(text("tokenizer_config.json", '{"tokenizer_class": "BertJapaneseTokenizer"}'), write_bert),
        UnsupportedError,
        "tokenizer_class='BertJapaneseTokenizer' is not supported; expected tokenizer.json in the folder, which says",
    ),
    (
        "hub-tokenizer-files",
        loading(text("vocab.json", "{}")),
        CheckpointError,
        "has no source.spm and no target.spm, and no tokenizer.json; of vocabularies it has vocab.json",
    ),
    (
        "hub-tokenizer-token",
        loading(text("tokenizer_config.json", '{"mask_token": 5}'), write_bert),
        CheckpointError,
        "mask_token is 5; expected a token as text, or its content and flags",
    ),
    (
        "hub-tokenizer-id",
        loading(text("added_tokens.json", '{"<new>": "x"}'), write_bert),
        CheckpointError,
        "a token has the id 'x'; expected a number from 0 on",
    ),
    (
        "hub-tokenizer-field",
        loading(text("tokenizer_config.json", '{"rewrites": "tweets"}'), write_bert),
        UnsupportedError,
        "tokenizer_config.json has the field rewrites='tweets', which is not known, and may change how texts are read",
    ),
    (
        "hub-tokenizer-refused",
        loading(text("tokenizer_config.json", '{"split_special_tokens": true}'), write_bert),
        UnsupportedError,
        "says split_special_tokens=True, which is not supported: marks in a text are marks; expected None or False",
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
