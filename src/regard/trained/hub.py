"""Published checkpoints: a folder in the layout of the Hugging Face hub.

    config.json                     the family as "model_type", and its fields
    model.safetensors               the tensors, or model.safetensors.index.json, which says the file of each
    tokenizer.json                  or vocab.txt, or vocab.json and merges.txt
    spiece.model                    or source.spm, target.spm and vocab.json, of SentencePiece: before any other
    tokenizer_config.json           which tokens have which roles; also special_tokens_map.json

Nothing in a folder is trusted: files are read in it alone, tensors when they are asked for, and pickles never.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, final

from tokenizers import AddedToken
from torch import Tensor

from regard.attention.check import is_integer, show
from regard.data.published_tokenizer import (
    ROLES,
    WORD_PIECE_ROLES,
    PublishedTokenizer,
    read_byte_level,
    read_word_piece,
)
from regard.data.sentencepiece_tokenizer import SentencePieceTokenizer, marian_tokenizer, t5_tokenizer
from regard.data.tokenizer import Tokenizer
from regard.errors import CheckpointError, UnsupportedError
from regard.models.published import WRONG, misfits
from regard.trained.encoder import Encoder
from regard.trained.families import FAMILIES
from regard.trained.folder import CONFIG, TOKENIZER, WEIGHTS, AnyTokenizer, need, open_weights, read_json
from regard.trained.sentence_transformers import MODULES, Layout, read_layout
from regard.trained.settings import read_settings

INDEX = "model.safetensors.index.json"
HUB_NAME = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")  # owner/model
HOW = ("single_word", "lstrip", "rstrip", "normalized", "special")  # a token is found in text
SENTENCEPIECE = ("spiece.model", "source.spm", "target.spm", "target_vocab.json")
EXTRA_ID = re.compile(r"<extra_id_\d+>")  # T5's marks
MOST_EXTRA_IDS = 100_000
EXTRA_IDS = 100  # of them, where the files don't say it
OWN = "_regard"  # a field of config.json, in which rg.export_hf says what others have no word for
FILES = ["*.json", "*.txt", "*.safetensors", "*.model", "*.spm"]  # that are downloaded


@final
class LazyState(Mapping[str, Tensor]):
    """Tensors by name in files of safetensors; each is read when it is asked for, and not kept.

    Args:
        files: the file of each name.
    """

    def __init__(self, files: Mapping[str, Any]) -> None:
        self._files = dict(files)

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def slices(self) -> list[Any]:
        """What the heads of the files say of each tensor: its shape and dtype."""
        return [file.get_slice(name) for name, file in self._files.items()]


def is_hub(folder: Path) -> bool:
    """Whether it is a folder of a published checkpoint, and not of regard's own format."""
    if not (folder / CONFIG).is_file():
        return (folder / MODULES).is_file()
    return "format" not in read_json(folder / CONFIG)


def read_hub(folder: str | Path) -> tuple[dict[str, Any], LazyState, AnyTokenizer]:
    """What a folder in the hub's layout holds.

    Args:
        folder: the folder.

    Returns:
        The fields of config.json and generation_config.json, the tensors, and the tokenizer, or None if the folder has
        none.

    Raises:
        CheckpointError: files that are missing, damaged or outside of the folder, a family that is not known, or
            weights that are pickled.
    """
    folder = Path(folder)
    need(folder, CONFIG)
    config = read_settings(folder)
    family = FAMILIES[config["model_type"]]
    for name in family.unread:
        if (folder / name).is_file():
            raise UnsupportedError(
                f"{folder / name}: the vocabulary of {family.fields.title}'s own checkpoints is not supported; "
                f"expected {TOKENIZER} alone, as rg.export_hf writes it"
            )
    own = config.get(OWN)
    if isinstance(own, dict) and own.get("tokenizer") is True:
        return config, read_state(folder), Tokenizer.load(inside(folder, need(folder, TOKENIZER)))
    return config, read_state(folder), read_tokenizer(folder, family.roles)


def load_hub(folder: str | Path) -> Any:
    """The object that a published checkpoint loads as.

    Args:
        folder: in the hub's layout, or of the sentence-transformers package, whose model may stand in a folder within.

    Returns:
        What the family's `job` is, such as a `Translator`.

    Raises:
        CheckpointError: as for `read_hub`, and weights that are not those of the configuration.
        UnsupportedError: a setting that says something that regard does not compute.
    """
    folder = Path(folder)
    layout = layout_of(folder)
    home = folder if layout is None else layout.transformer
    config, state, tokenizer = read_hub(home)
    family = FAMILIES[config["model_type"]]
    path = home / CONFIG
    try:
        module = family.read(config, state)
    except (UnsupportedError, CheckpointError):
        raise
    except KeyError as error:
        raise CheckpointError(f"{path} lacks the field {error}") from error
    except WRONG as error:
        raise CheckpointError(f"{path} describes no model: {error}") from error
    said: dict[str, Any] = {"published": config}
    if isinstance(own := config.get(OWN), dict):
        said["training"] = own
        if own.get("max_length") == config.get("max_length"):  # which is for others: regard's depends on the source
            config.pop("max_length", None)
    if layout is None or family.job is not Encoder:
        return family.job(module, tokenizer, said)
    if layout.lowercase and isinstance(tokenizer, PublishedTokenizer):
        tokenizer.lowercase()
    return Encoder(module, tokenizer, said, embedding=layout.embedding)


def layout_of(folder: Path) -> Layout | None:
    """What a folder of the sentence-transformers package says; None if it is none; see `read_layout`."""
    return read_layout(folder, lambda path: inside(folder, path))


def download(name: str) -> Path:
    """A model of the hub as a folder on this machine.

    Args:
        name: such as "sentence-transformers/all-MiniLM-L6-v2".

    Returns:
        The folder, in the cache that huggingface_hub keeps.

    Raises:
        CheckpointError: huggingface_hub is not installed, or it cannot get the model.
    """
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise CheckpointError(
            f"{name} does not exist; expected the folder of a model. To get a model of this name from the hub: pip "
            "install huggingface-hub"
        ) from error
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=FILES))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{name} does not exist; expected the folder of a model. The hub does not give a model of this name "
            f"either: {' '.join(str(error).split())}"
        ) from error


def read_state(folder: Path) -> LazyState:
    """The tensors of a folder, in one file or in those that its index names.

    Args:
        folder: in the hub's layout.

    Returns:
        The tensors, none of which is read yet.

    Raises:
        CheckpointError: a file that is missing, damaged, pickled or outside of the folder, or that lacks a tensor
            which the index says it has.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        file = open_weights(inside(folder, need(folder, WEIGHTS)))
        return LazyState(dict.fromkeys(file.keys(), file))
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
        raise CheckpointError(f'{index}: "weight_map" is {show(where)}; expected the file of each tensor by name')
    for name in sorted(set(where.values())):
        if name != PurePosixPath(name).name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index} names the file {name!r}; expected names of safetensors files beside it")
    shards = {name: open_weights(inside(folder, need(folder, name))) for name in sorted(set(where.values()))}
    held = {name: set(file.keys()) for name, file in shards.items()}
    lost = [f"{tensor} in {file}" for tensor, file in where.items() if tensor not in held[file]]
    extra = [f"{tensor} in {file}" for file, names in held.items() for tensor in names if where.get(tensor) != file]
    if wrong := misfits({"missing": lost, "not in the index": sorted(extra)}):
        raise CheckpointError(f"{index} does not say what the files beside it hold: {wrong}")
    return LazyState({tensor: shards[file] for tensor, file in where.items()})


def inside(folder: Path, path: Path) -> Path:
    """The path of a file of the folder; a link out of it is followed only where the hub's own cache makes one.

    Args:
        folder: in the hub's layout.
        path: of a file in it.

    Returns:
        The path.

    Raises:
        CheckpointError: a link to another place.
    """
    real, home = path.resolve(), folder.resolve()
    snapshot = next((x for x in (home, home.parent) if x.parent.name == "snapshots"), None)
    blobs = home if snapshot is None else snapshot.parent.parent / "blobs"
    if home not in real.parents and blobs != real.parent:
        raise CheckpointError(f"{path} is a link to {real}, outside of the folder; put a copy of the file in its place")
    return path


def read_tokenizer(folder: Path, usual: Mapping[str, str]) -> AnyTokenizer:
    """The tokenizer of a folder, from whichever files it has.

    Args:
        folder: in the hub's layout.
        usual: tokens by role where the files don't say them.

    Returns:
        The tokenizer, or None if there are no such files.

    Raises:
        CheckpointError: files that are damaged or don't go together.
    """
    names = (TOKENIZER, "vocab.txt", "vocab.json", "merges.txt", *SENTENCEPIECE)
    files = {name: inside(folder, folder / name) for name in names if (folder / name).is_file()}
    settings = {**_settings(folder, "special_tokens_map.json"), **_settings(folder, "tokenizer_config.json")}
    said = {role: token.content for role in ROLES if (token := _token(settings.get(f"{role}_token"))) is not None}
    added = _added(folder, settings)
    roles, tokens = said or usual, list(added.values())
    made: PublishedTokenizer | SentencePieceTokenizer
    if {"source.spm", "target.spm", "vocab.json"} <= set(files):
        if "target_vocab.json" in files:
            raise UnsupportedError(
                f"{folder}: target_vocab.json, a vocabulary of targets beside that of sources, is not supported; "
                "expected one vocab.json for both"
            )
        source, target = (files[name].read_bytes() for name in ("source.spm", "target.spm"))
        made = marian_tokenizer(source, target, read_json(files["vocab.json"]))
    elif "spiece.model" in files:
        made = t5_tokenizer(files["spiece.model"].read_bytes(), extra_ids=_extra_ids(folder, settings))
    elif TOKENIZER in files:
        made = PublishedTokenizer.load(files[TOKENIZER], roles, tokens)
    elif "vocab.txt" in files:
        made = read_word_piece(
            files["vocab.txt"],
            {**WORD_PIECE_ROLES, **usual, **roles},
            tokens,
            lowercase=settings.get("do_lower_case") is not False,
            strip_accents=settings.get("strip_accents"),
            chinese=settings.get("tokenize_chinese_chars") is not False,
        )
    elif {"vocab.json", "merges.txt"} <= set(files):
        space = settings.get("add_prefix_space") is True
        made = read_byte_level(files["vocab.json"], files["merges.txt"], {**usual, **roles}, tokens, prefix_space=space)
    else:
        return None
    for i, token in added.items():
        if made.id_of(token.content) != i:
            raise CheckpointError(
                f"{folder}: the token {token.content!r} is said to be {i}, and the vocabulary makes it "
                f"{made.id_of(token.content)}"
            )
    return made


def _extra_ids(folder: Path, settings: Mapping[str, Any]) -> int:
    """How many marks T5's vocabulary has behind its pieces."""
    listed = settings.get("additional_special_tokens", [])
    texts = [token.content for one in listed if (token := _token(one)) is not None] if isinstance(listed, list) else []
    named = sum(bool(EXTRA_ID.fullmatch(text)) for text in texts)
    said = settings.get("extra_ids", named or EXTRA_IDS)
    if not is_integer(said) or not 0 <= said <= MOST_EXTRA_IDS:
        raise CheckpointError(f"{folder}: extra_ids={show(said)}; expected a number from 0 to {MOST_EXTRA_IDS}")
    return int(said)


def _settings(folder: Path, name: str) -> dict[str, Any]:
    return read_json(inside(folder, folder / name)) if (folder / name).is_file() else {}


def _added(folder: Path, settings: Mapping[str, Any]) -> dict[int, AddedToken]:
    """The tokens that stand beside the vocabulary, by id, in order."""
    found = {i: AddedToken(token) for token, i in _settings(folder, "added_tokens.json").items() if is_integer(i)}
    described = settings.get("added_tokens_decoder")
    for i, plain in described.items() if isinstance(described, dict) else ():
        if i.isdecimal() and (token := _token(plain)) is not None:
            found[int(i)] = token
    return dict(sorted(found.items()))


def _token(plain: object) -> AddedToken | None:
    """A token as the files have it: its text, or a dictionary that also says how it is found."""
    if isinstance(plain, str):
        return AddedToken(plain, special=True, normalized=False)
    if not isinstance(plain, dict) or not isinstance(plain.get("content"), str):
        return None
    how = {name: plain[name] for name in HOW if isinstance(plain.get(name), bool)}
    return AddedToken(plain["content"], **how)
