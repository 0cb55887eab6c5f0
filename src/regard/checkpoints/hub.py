"""Published checkpoints: a folder in the layout of the Hugging Face hub.

    config.json                     the family as "model_type", and its fields
    model.safetensors               the tensors, or model.safetensors.index.json, which says the file of each
    tokenizer.json, spiece.model    and others, of the tokenizer: see `hub_tokenizer`

Nothing in a folder is trusted: files are read in it alone, tensors when they are asked for, and pickles never.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, final

from torch import Tensor, nn

from regard.attention.check import is_integer, show
from regard.checkpoints.families import FAMILIES
from regard.checkpoints.folder import CONFIG, WEIGHTS, AnyTokenizer, need, open_weights, read_json
from regard.checkpoints.hub_files import inside, settings
from regard.checkpoints.hub_tokenizer import read_tokenizer
from regard.errors import CheckpointError, UnsupportedError, nearest
from regard.models.published import WRONG, misfits
from regard.models.registry import vocabulary_size
from regard.models.seq2seq import Seq2Seq

GENERATION = "generation_config.json"
INDEX = "model.safetensors.index.json"
HUB_NAME = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")  # owner/model
MODULES = "modules.json"  # of the sentence-transformers package: the steps from a text to its vector
STEPS = ("Transformer", "Pooling", "Normalize")
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}
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


def is_hub(folder: Path) -> bool:
    """Whether a folder's config.json names a family, and not regard's own format."""
    if not (folder / CONFIG).is_file():
        return False
    config = read_json(folder / CONFIG)
    return "format" not in config and "model_type" in config


def read_hub(folder: str | Path) -> tuple[dict[str, Any], LazyState, AnyTokenizer]:
    """What a folder in the hub's layout holds.

    Args:
        folder: the folder.

    Returns:
        The fields of config.json, the tensors, and the tokenizer, or None if the folder has none.

    Raises:
        CheckpointError: files that are missing, damaged or outside of the folder, a family that is not known, or
            weights that are pickled.
    """
    folder = Path(folder)
    config = read_json(need(folder, CONFIG))
    kind = config.get("model_type")
    if kind not in list(FAMILIES):
        raise CheckpointError(f"{folder / CONFIG}: unknown model_type {show(kind)}; {nearest(str(kind), FAMILIES)}")
    return config, read_state(folder), read_tokenizer(folder, FAMILIES[kind].tokenizer)


def load_hub(folder: str | Path) -> tuple[str, nn.Module, AnyTokenizer, dict[str, Any]]:
    """A published checkpoint: its job, module, tokenizer and configuration.

    Args:
        folder: in the hub's layout.

    Returns:
        The family's `job`, such as "translate"; the module; the tokenizer, None if the folder has none; and the fields
        of config.json under "published", with "embedding" where a folder says how texts become vectors.

    Raises:
        CheckpointError: as for `read_hub`, and weights that are not those of the configuration.
        UnsupportedError: a field of config.json that says something that regard does not compute.
    """
    config, state, tokenizer = read_hub(folder)
    family = FAMILIES[config["model_type"]]
    if issubclass(family.module, Seq2Seq):  # for which the fields of both files were one, and of old ones still are
        config |= settings(Path(folder), GENERATION)
    path = Path(folder, CONFIG)
    try:
        module = family.read(config, state)
    except (UnsupportedError, CheckpointError) as error:
        error.args = (f"{path}: {error}",)  # models know of no files
        raise
    except KeyError as error:
        raise CheckpointError(f"{path} lacks the field {error}") from error
    except WRONG as error:
        raise CheckpointError(f"{path} describes no model: {error}") from error
    if tokenizer is not None:
        tokenizer.rows = vocabulary_size(module.config)
    embedding = read_embedding(Path(folder))
    return family.job, module, tokenizer, {"published": config, **({"embedding": embedding} if embedding else {})}


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


def read_embedding(folder: Path) -> dict[str, Any]:
    """How texts become vectors, where the folder is one of the sentence-transformers package.

    Args:
        folder: in the hub's layout.

    Returns:
        "pooling" and "longest", as far as they are said.

    Raises:
        UnsupportedError: a pooling, or a step after it, that regard does not compute.
    """
    if not (folder / MODULES).is_file():
        return {}
    modules = read_json(inside(folder, folder / MODULES), list)
    steps = [step for step in modules if isinstance(step, dict)]
    kinds = [str(step.get("type")).rpartition(".")[2] for step in steps]
    for kind in kinds:
        if kind not in STEPS:
            raise UnsupportedError(f"{folder / MODULES}: the step {kind} is not supported; known: {', '.join(STEPS)}")
    found: dict[str, Any] = {}
    for step, kind in zip(steps, kinds, strict=True):
        path = str(step.get("path", ""))
        if kind == "Pooling" and PurePosixPath(path).name == path:
            pooling = settings(inside(folder, folder / path), CONFIG)
            asked = [name for name, x in pooling.items() if name.startswith("pooling_mode_") and x is True]
            if len(asked) != 1 or asked[0] not in POOLINGS:
                known = ", ".join(POOLINGS)
                raise UnsupportedError(
                    f"{folder / path}: the pooling {asked} is not supported; expected one of {known}"
                )
            found["pooling"] = POOLINGS[asked[0]]
    longest = settings(folder, "sentence_bert_config.json").get("max_seq_length")
    return found | ({"longest": longest} if is_integer(longest) and longest > 0 else {})
