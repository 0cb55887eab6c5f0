"""A trained model as a folder: its configuration, its tokenizer and its weights.

    config.json         {"format": 1, "task": "translate", "model": {"name": ..., its configuration}, "training": ...}
    tokenizer.json
    model.safetensors   the tensors of `module.state_dict()`, each once

Nothing is ever unpickled, since a pickle may run any code. Files are written beside the ones they replace, all of
them before the first takes its place: a full disk loses nothing.
"""

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from regard.attention.check import show
from regard.data.published_tokenizer import PublishedTokenizer
from regard.data.sentencepiece_tokenizer import SentencePieceTokenizer
from regard.data.text_tokenizer import TextTokenizer
from regard.data.tokenizer import Tokenizer
from regard.data.word_tokenizer import WordTokenizer
from regard.errors import CheckpointError, ConfigError, nearest
from regard.models.published import WRONG, misfits, some
from regard.models.registry import build, config_from_plain, config_to_plain, name_of, vocabulary_size

FORMAT = 1
CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
AnyTokenizer = TextTokenizer | WordTokenizer | None
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


def save(
    folder: str | Path,
    module: nn.Module,
    tokenizer: AnyTokenizer,
    config: Mapping[str, Any],
    *,
    task: str,
    dtype: str = "float32",
    more: Mapping[str, bytes] | None = None,
) -> None:
    """Write a model that `read` reads; other files of the folder stay.

    Args:
        folder: made if missing.
        module: the model.
        tokenizer: what it was trained with; None for none.
        config: what else `config.json` shall hold, such as "training"; format, task and model are filled in.
        task: the job that it is for, by name.
        dtype: of the weights on disk: float32, float16 or bfloat16.
        more: other files, by their paths in the folder.

    Raises:
        ConfigError: an unknown dtype.
        CheckpointError: weights that are not finite, or that a smaller dtype cannot hold.
        OSError: a folder that cannot be written, a full disk.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; {nearest(dtype, DTYPES)}")
    named = {name: _stored(name, x, DTYPES[dtype]) for name, x in _without_aliases(module).items()}
    plain = {"name": name_of(module.config), **config_to_plain(module.config)}
    found = {**config, "format": FORMAT, "task": task, "model": plain}
    if tokenizer is None or tokenizer.kind != Tokenizer.kind:
        found["tokenizer"] = None if tokenizer is None else tokenizer.settings()
    text = json.dumps(found, indent=2)
    writers: dict[str, Callable[[Path], object]] = {
        **{name: partial(Path.write_bytes, data=content) for name, content in (more or {}).items()},
        WEIGHTS: lambda path: path.write_bytes(safetensors.torch.save(named)),
        **({} if tokenizer is None else {TOKENIZER: tokenizer.save}),
        CONFIG: lambda path: path.write_text(text + "\n", encoding="utf-8"),
    }
    write_all(Path(folder), writers)


def read(folder: str | Path) -> tuple[Any, Any, dict[str, Any]]:
    """The model, the tokenizer and the configuration that `save` wrote.

    Args:
        folder: what `save` was given.

    Returns:
        The module in evaluation mode with float32 weights, its tokenizer, and `config.json`.

    Raises:
        CheckpointError: a file that is missing, damaged, of another format, or that does not fit the others.
    """
    folder = Path(folder)
    config = read_config(folder)
    tokenizer = _tokenizer(folder, config)
    module = _build(folder / CONFIG, config, tokenizer)
    _fill(module, need(folder, WEIGHTS))
    return module.eval(), tokenizer, config


def read_config(folder: Path) -> dict[str, Any]:
    """What `config.json` of a folder says, of a known format and task."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise CheckpointError(f"{folder} {what}; expected the folder of a trained model, with {CONFIG} in it")
    path = need(folder, CONFIG)
    config = read_json(path)
    if "format" not in config:
        raise CheckpointError(f'{path} is not the configuration of a regard model: it has no "format"')
    if config["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {config['format']!r}; this version of regard reads format {FORMAT}")
    if not isinstance(config.get("task"), str):
        raise CheckpointError(
            f'{path} has task {config.get("task")!r}; expected the name of a job, such as "translate"'
        )
    model = config.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("name"), str):
        raise CheckpointError(f'{path} names no model; expected "model": {{"name": ...}}, got {model!r}')
    return config


def read_json(path: Path, kind: type = dict) -> Any:
    """What a file of JSON holds: an object of fields, or a list."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested without end
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(plain, kind):
        expected = "an object of fields" if kind is dict else "a list"
        raise CheckpointError(f"{path} holds {show(plain)}; expected {expected}")
    return plain


class Weights(NamedTuple):
    """What a file of weights holds."""

    tensors: int
    numbers: int
    dtypes: list[str]
    size: int  # bytes of the file


def weigh(folder: Path) -> Weights:
    """What `model.safetensors` of a folder holds, from the file's head alone."""
    path = need(folder, WEIGHTS)
    with open_weights(path) as file:
        slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 - no dictionary
        numbers = sum(math.prod(part.get_shape()) for part in slices)
        return Weights(len(slices), numbers, sorted({part.get_dtype() for part in slices}), path.stat().st_size)


def write_all(folder: Path, writers: Mapping[str, Callable[[Path], object]]) -> None:
    """Write files under temporary names, then rename them all; after an error the folder is as it was."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as temporary:
        for name, write in writers.items():
            path = Path(temporary, name)
            path.parent.mkdir(exist_ok=True)
            write(path)
            with path.open("rb+") as file:
                os.fsync(file.fileno())  # else a power cut may leave an empty file under the final name
        for name in writers:
            (folder / name).parent.mkdir(exist_ok=True)
            Path(temporary, name).replace(folder / name)


def need(folder: Path, name: str) -> Path:
    """The path of a file of the folder, which must be there."""
    path = folder / name
    if path.is_file():
        return path
    found = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    pickles = [file for file in found if Path(file).suffix in PICKLES]
    if name == WEIGHTS and pickles:
        raise CheckpointError(
            f"{folder} has {pickles[0]} and no {WEIGHTS}: regard reads no pickles, since loading one may run any code; "
            f"convert one that you trust: safetensors.torch.save_file(torch.load({pickles[0]!r}, weights_only=True), "
            f"{WEIGHTS!r})"
        )
    raise CheckpointError(f"{path} is missing; the folder has {some(found) or 'nothing'}")


def _tokenizer(folder: Path, config: Mapping[str, Any]) -> AnyTokenizer:
    """The tokenizer: regard's own, unless config.json describes another, or says that there is none."""
    if "tokenizer" not in config:
        return Tokenizer.load(need(folder, TOKENIZER))
    described = config["tokenizer"]
    if described is None:
        return None
    roles = described.get("roles") if isinstance(described, dict) else None
    if not isinstance(roles, dict) or not all(isinstance(token, str) for token in roles.values()):
        raise CheckpointError(
            f'{folder / CONFIG}: "tokenizer" is {show(described)}; expected {{"roles": {{role: token}}}}'
        )
    if described.get("kind") == WordTokenizer.kind:
        return WordTokenizer.load(need(folder, TOKENIZER))
    tokenizer: TextTokenizer
    if described.get("kind") == SentencePieceTokenizer.kind:
        tokenizer = SentencePieceTokenizer.load(need(folder, TOKENIZER))
    else:
        tokenizer = PublishedTokenizer.load(need(folder, TOKENIZER), roles)
    tokenizer.use(described)
    return tokenizer


def _build(path: Path, config: Mapping[str, Any], tokenizer: AnyTokenizer) -> nn.Module:
    settings = dict(config["model"])
    try:
        made = config_from_plain(settings.pop("name"), settings)
    except WRONG as error:
        raise CheckpointError(f"{path} describes no model: {error}") from error
    if tokenizer is not None:
        size = vocabulary_size(made)
        # Published models may have more embeddings than tokens, or tokens without embeddings, which are not used.
        if tokenizer.kind == Tokenizer.kind and size != tokenizer.size:
            raise CheckpointError(
                f"{path} says {size} pieces of vocabulary, and {TOKENIZER} beside it has {tokenizer.size}; "
                "they are of different models"
            )
        tokenizer.rows = size
    try:
        with torch.random.fork_rng(
            devices=[]
        ):  # its first weights are thrown away: the caller's draws stay as they were
            return build(made)
    except WRONG as error:
        raise CheckpointError(f"{path} describes a model that cannot be built: {error}") from error


def _fill(module: nn.Module, path: Path) -> None:
    """Give the module the tensors of a file, which must be all of its tensors."""
    with open_weights(path) as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
    expected = _without_aliases(module)
    shapes = [
        f"{name} {tuple(found[name].shape)} for {tuple(x.shape)}"
        for name, x in expected.items()
        if name in found and found[name].shape != x.shape
    ]
    wrong = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": shapes,
    }
    if said := misfits(wrong):
        raise CheckpointError(f"{path} holds the weights of another model than {CONFIG} says: {said}")
    with torch.no_grad():
        for name, x in expected.items():
            x.copy_(found[name])


def open_weights(path: Path) -> Any:
    """A file of safetensors, of which only the head is read."""
    try:
        return safetensors.safe_open(path, framework="pt")
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is damaged, or no safetensors file: {error}") from error


def _without_aliases(module: nn.Module) -> dict[str, Tensor]:
    """The state, without second names of the same tensor (shared embeddings)."""
    seen: set[tuple[int, torch.Size]] = set()
    state = {}
    for name, x in module.state_dict().items():
        place = (x.data_ptr(), x.shape)
        if place not in seen or not x.numel():
            state[name] = x
        seen.add(place)
    return state


def _stored(name: str, x: Tensor, dtype: torch.dtype) -> Tensor:
    stored = x.detach().to(device="cpu", dtype=dtype if x.is_floating_point() else x.dtype).contiguous()
    if not bool(stored.isfinite().all()):
        why = f"has numbers that {dtype} cannot hold" if bool(x.isfinite().all()) else "has numbers that are not finite"
        raise CheckpointError(f"{name} {why}; nothing was written")
    return stored
