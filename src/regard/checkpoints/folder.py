"""regard's checkpoint format: a folder with configuration, tokenizer and weights.

    config.json         {"format": 1, "task": "translate", "model": {"name": ..., its configuration}, "training": ...}
    tokenizer.json
    model.safetensors   the tensors of `module.state_dict()`, shared ones once

A model in int8 has "dtype": "int8" in its configuration, and codes and scales in the place of weights.

Nothing is unpickled, since a pickle can run any code. All files are written under temporary names before the first one
is renamed, so that an error or a full disk leaves the folder as it was.
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
from regard.layers.quantization import WeightsOnMeta, can_be_int8, replace_by_empty
from regard.layers.quantized_linear import CODES, QuantizedEmbedding, QuantizedLinear, is_quantized
from regard.models.published import BUILD_ERRORS, describe_mismatches, summarize_names
from regard.models.registry import (
    FORMER_DEFAULTS,
    build,
    config_from_plain,
    config_to_plain,
    name_of,
    vocabulary_size,
)

FORMAT = 1
CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
AnyTokenizer = TextTokenizer | WordTokenizer | None
DTYPE, INT8 = "dtype", "int8"  # entry of the configuration of a model in int8
PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


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
    """Save a model to a folder, from which `read` loads it. Other files in the folder are kept.

    Args:
        folder: created if missing.
        module: the model.
        tokenizer: its tokenizer; None for none.
        config: further entries of `config.json`, such as "training"; format, task and model are added.
        task: name of the model's job.
        dtype: of the weights on disk: float32, float16 or bfloat16. A model in int8 stays in int8, and what it has in
            float32 stays so.
        more: contents of further files, by their paths in the folder.

    Raises:
        ConfigError: an unknown dtype, or another than float32 for a model in int8.
        CheckpointError: weights that are not finite, or overflow in a smaller dtype.
        OSError: the folder cannot be written, or the disk is full.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; {nearest(dtype, DTYPES)}")
    quantized = any(map(is_quantized, module.modules()))
    if quantized and dtype != "float32":
        raise ConfigError(
            f"save: dtype={dtype!r} of a model with int8 weights, which are saved in int8; leave dtype out, or save "
            "the float32 model that it was made from"
        )
    tensors = {name: _to_dtype(name, x, DTYPES[dtype]) for name, x in _without_aliases(module).items()}
    plain = {"name": name_of(module.config), **config_to_plain(module.config)}
    saved = {**config, "format": FORMAT, "task": task, "model": plain}
    saved = {**saved, DTYPE: INT8} if quantized else {name: x for name, x in saved.items() if name != DTYPE}
    if tokenizer is None or tokenizer.kind != Tokenizer.kind:
        saved["tokenizer"] = None if tokenizer is None else tokenizer.settings()
    text = json.dumps(saved, indent=2)
    writers: dict[str, Callable[[Path], object]] = {
        **{name: partial(Path.write_bytes, data=content) for name, content in (more or {}).items()},
        WEIGHTS: lambda path: path.write_bytes(safetensors.torch.save(tensors)),
        **({} if tokenizer is None else {TOKENIZER: tokenizer.save}),
        CONFIG: lambda path: path.write_text(text + "\n", encoding="utf-8"),
    }
    write_all(Path(folder), writers)


def read(folder: str | Path) -> tuple[Any, Any, dict[str, Any]]:
    """Load a model that `save` wrote.

    Args:
        folder: of the model.

    Returns:
        The module in evaluation mode with float32 or int8 weights, its tokenizer, and the contents of `config.json`.

    Raises:
        CheckpointError: a file that is missing, damaged, of another format, or inconsistent with the others.
    """
    folder = Path(folder)
    config = read_config(folder)
    tokenizer = _load_tokenizer(folder, config)
    path = require_file(folder, WEIGHTS)
    if config.get(DTYPE) == INT8:
        with WeightsOnMeta():  # they are replaced by int8 layers
            module = _build(folder / CONFIG, config, tokenizer)
        _use_int8(module, path)
    else:
        module = _build(folder / CONFIG, config, tokenizer)
    _load_weights(module, path)
    return module.eval(), tokenizer, config


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check the `config.json` of a folder."""
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise CheckpointError(f"{folder} {problem}; expected the folder of a trained model, with {CONFIG} in it")
    path = require_file(folder, CONFIG)
    config = read_json(path)
    if "format" not in config:
        raise CheckpointError(f'{path} is not the configuration of a regard model: it has no "format"')
    if config["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {config['format']!r}; this version of regard reads format {FORMAT}")
    if not isinstance(config.get("task"), str):
        raise CheckpointError(
            f'{path} has task {config.get("task")!r}; expected the name of a job, such as "translate"'
        )
    if config.get(DTYPE, INT8) != INT8:
        raise CheckpointError(f'{path} has dtype {show(config[DTYPE])}; expected "int8", or no such entry for float32')
    model = config.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("name"), str):
        raise CheckpointError(f'{path} has "model": {model!r}; expected {{"name": ..., its configuration}}')
    return config


def read_json(path: Path, kind: type = dict) -> Any:
    """Read a JSON file, whose value must be a dict, or of another type.

    Args:
        path: of the file.
        kind: dict or list.

    Returns:
        The value.

    Raises:
        CheckpointError: not JSON, or a value of another type.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested too deeply
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(plain, kind):
        expected = "an object of fields" if kind is dict else "a list"
        raise CheckpointError(f"{path} holds {show(plain)}; expected {expected}")
    return plain


class WeightsInfo(NamedTuple):
    """Statistics of a file of weights."""

    tensors: int  # number of tensors
    numbers: int  # number of parameters
    dtypes: list[str]
    size: int  # bytes of the file


def read_weights_info(folder: Path) -> WeightsInfo:
    """Statistics of a folder's `model.safetensors`, from the header of the file alone."""
    path = require_file(folder, WEIGHTS)
    with open_weights(path) as file:
        slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 - not a dictionary
        numbers = sum(math.prod(part.get_shape()) for part in slices)
        return WeightsInfo(len(slices), numbers, sorted({part.get_dtype() for part in slices}), path.stat().st_size)


def write_all(folder: Path, writers: Mapping[str, Callable[[Path], object]]) -> None:
    """Write files under temporary names, then rename all; after an error the folder is unchanged.

    Args:
        folder: created if missing.
        writers: for each file, by its path in the folder, a function that writes it to a path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as temporary:
        for name, write in writers.items():
            path = Path(temporary, name)
            path.parent.mkdir(exist_ok=True)
            write(path)
            with path.open("rb+") as file:
                os.fsync(file.fileno())  # otherwise a power failure could leave an empty file under the final name
        for name in writers:
            (folder / name).parent.mkdir(exist_ok=True)
            Path(temporary, name).replace(folder / name)


def require_file(folder: Path, name: str) -> Path:
    """The path of a file in a folder, which must exist."""
    path = folder / name
    if path.is_file():
        return path
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    pickles = [file for file in names if Path(file).suffix in PICKLE_SUFFIXES]
    if name == WEIGHTS and pickles:
        raise CheckpointError(
            f"{folder} has {pickles[0]} and no {WEIGHTS}: regard reads no pickles, since loading one can run any code; "
            f"convert one that you trust: safetensors.torch.save_file(torch.load({pickles[0]!r}, weights_only=True), "
            f"{WEIGHTS!r})"
        )
    raise CheckpointError(f"{path} is missing; the folder has {summarize_names(names) or 'nothing'}")


def _load_tokenizer(folder: Path, config: Mapping[str, Any]) -> AnyTokenizer:
    """The tokenizer of a folder: regard's own, unless config.json has an entry "tokenizer"; None if that is null."""
    if "tokenizer" not in config:
        return Tokenizer.load(require_file(folder, TOKENIZER))
    settings = config["tokenizer"]
    if settings is None:
        return None
    roles = settings.get("roles") if isinstance(settings, dict) else None
    if not isinstance(roles, dict) or not all(isinstance(token, str) for token in roles.values()):
        raise CheckpointError(
            f'{folder / CONFIG}: "tokenizer" is {show(settings)}; expected {{"roles": {{role: token}}}}'
        )
    if settings.get("kind") == WordTokenizer.kind:
        return WordTokenizer.load(require_file(folder, TOKENIZER))
    tokenizer: TextTokenizer
    if settings.get("kind") == SentencePieceTokenizer.kind:
        tokenizer = SentencePieceTokenizer.load(require_file(folder, TOKENIZER))
    else:
        tokenizer = PublishedTokenizer.load(require_file(folder, TOKENIZER), roles)
    tokenizer.use(settings)
    return tokenizer


def _build(path: Path, config: Mapping[str, Any], tokenizer: AnyTokenizer) -> nn.Module:
    """Build the module that config.json describes, and check the tokenizer against it."""
    fields = {**FORMER_DEFAULTS.get(config["model"].get("name"), {}), **config["model"]}
    try:
        model_config = config_from_plain(fields.pop("name"), fields)
    except BUILD_ERRORS as error:
        raise CheckpointError(f"{path} does not describe a model: {error}") from error
    if tokenizer is not None:
        size = vocabulary_size(model_config)
        # Published models may have more embeddings than tokens, or tokens without embeddings, refused in `check_rows`.
        if tokenizer.kind == Tokenizer.kind and size != tokenizer.size:
            raise CheckpointError(
                f"{path} has a vocabulary of {size} tokens, and {TOKENIZER} beside it has {tokenizer.size}; expected "
                "files of the same model"
            )
        tokenizer.rows = size
    try:
        with torch.random.fork_rng(devices=[]):  # keeps the caller's generator: initial weights are overwritten
            return build(model_config)
    except BUILD_ERRORS as error:
        raise CheckpointError(f"{path} describes a model that cannot be built: {error}") from error


def _use_int8(module: nn.Module, path: Path) -> None:
    """Put empty int8 layers where a file has codes."""
    with open_weights(path) as file:
        names = {name.removesuffix(CODES) for name in file.keys() if name.endswith(CODES)}  # noqa: SIM118
    parts = dict(module.named_modules())
    unknown = sorted(name for name in names if not can_be_int8(parts.get(name)))
    if unknown or not names:
        problem = f"int8 codes of {summarize_names(unknown)}, which the model has not" if names else "no int8 codes"
        raise CheckpointError(f"{path} does not match {CONFIG}: it has {problem}; expected files of the same model")
    replace_by_empty(module, names)


def _load_weights(module: nn.Module, path: Path) -> None:
    """Copy the tensors of a file into the module; both must have the same tensors."""
    with open_weights(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    expected = _without_aliases(module)
    shapes = [
        f"{name} {tuple(tensors[name].shape)}, expected {tuple(x.shape)}"
        for name, x in expected.items()
        if name in tensors and tensors[name].shape != x.shape
    ]
    wrong = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "of another shape": shapes,
        "of another dtype": [
            f"{name} {tensors[name].dtype}, expected {x.dtype}"
            for name, x in expected.items()
            if name in tensors and tensors[name].is_floating_point() != x.is_floating_point()
        ],
    }
    if mismatches := describe_mismatches(wrong):
        raise CheckpointError(f"{path} does not match {CONFIG}: {mismatches}; expected files of the same model")
    with torch.no_grad():
        for name, x in expected.items():
            x.copy_(tensors[name])
    for part in module.modules():
        if isinstance(part, QuantizedLinear | QuantizedEmbedding):
            part.count()


def open_weights(path: Path) -> Any:
    """Open a safetensors file and read its header; tensors are read on request."""
    try:
        return safetensors.safe_open(path, framework="pt")
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is damaged, or not a safetensors file: {error}") from error


def _without_aliases(module: nn.Module) -> dict[str, Tensor]:
    """The state dictionary, with shared tensors under their first name only."""
    shared: set[tuple[int, torch.Size]] = set()
    state = {}
    for name, x in module.state_dict().items():
        storage = (x.data_ptr(), x.shape)
        if storage not in shared or not x.numel():
            state[name] = x
        shared.add(storage)
    return state


def _to_dtype(name: str, x: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor on the CPU in this dtype, if it is floating-point; raises CheckpointError if it is not finite."""
    converted = x.detach().to(device="cpu", dtype=dtype if x.is_floating_point() else x.dtype).contiguous()
    if not bool(converted.isfinite().all()):
        problem = (
            f"has values that overflow in {dtype}" if bool(x.isfinite().all()) else "has values that are not finite"
        )
        raise CheckpointError(f"{name} {problem}; nothing was written")
    return converted
