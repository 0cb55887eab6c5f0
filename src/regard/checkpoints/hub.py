"""Loading of published checkpoints: folders in the layout of the Hugging Face hub.

    config.json                     the family as "model_type", and its fields
    model.safetensors               the tensors, or model.safetensors.index.json with the file of each tensor
    tokenizer.json, spiece.model    and other files of the tokenizer: see `hub_tokenizer`

Folders are not trusted: only files inside of them are read, tensors lazily, and pickles never.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, final

from torch import Tensor, nn

from regard.attention.check import show
from regard.checkpoints.families import FAMILIES
from regard.checkpoints.folder import CONFIG, TOKENIZER, WEIGHTS, AnyTokenizer, open_weights, read_json, require_file
from regard.checkpoints.hub_files import check_inside
from regard.checkpoints.hub_tokenizer import read_tokenizer
from regard.checkpoints.sentence_transformers import MODULES, Layout, read_layout
from regard.checkpoints.settings import read_settings
from regard.data.published_tokenizer import PublishedTokenizer
from regard.data.tokenizer import Tokenizer
from regard.errors import CheckpointError, UnsupportedError
from regard.models.published import BUILD_ERRORS, describe_mismatches
from regard.models.registry import vocabulary_size

INDEX = "model.safetensors.index.json"
HUB_NAME = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")  # owner/model
OWN = "_regard"  # field of config.json with settings that only regard has, written by rg.export_hf
FILES = ["*.json", "*.txt", "*.safetensors", "*.model", "*.spm"]  # patterns of files to download


@final
class LazyState(Mapping[str, Tensor]):
    """A mapping of tensors in safetensors files, which reads a tensor at each access.

    Args:
        files: the open file of each tensor, by name.
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
        """The safetensors slice of each tensor, which has its shape and dtype."""
        return [file.get_slice(name) for name, file in self._files.items()]


def is_hub(folder: Path) -> bool:
    """Whether a folder is a published checkpoint, rather than one in regard's own format."""
    if not (folder / CONFIG).is_file():
        return (folder / MODULES).is_file()
    return "format" not in read_json(folder / CONFIG)


def read_hub(folder: str | Path) -> tuple[dict[str, Any], LazyState, AnyTokenizer]:
    """Read a folder in the hub's layout.

    Args:
        folder: the folder.

    Returns:
        The fields of config.json and generation_config.json, the tensors, and the tokenizer, or None if the folder has
        none.

    Raises:
        CheckpointError: files that are missing, damaged or outside of the folder; an unknown family; pickled weights.
    """
    folder = Path(folder)
    require_file(folder, CONFIG)
    config = read_settings(folder)
    family = FAMILIES[config["model_type"]]
    for name in family.unread:
        if (folder / name).is_file():
            raise UnsupportedError(
                f"{folder / name}: original vocabularies of {family.fields.title} are not supported; expected only "
                f"{TOKENIZER}, as rg.export_hf writes it"
            )
    own = config.get(OWN)
    if isinstance(own, dict) and own.get("tokenizer") is True:
        return config, read_state(folder), Tokenizer.load(check_inside(folder, require_file(folder, TOKENIZER)))
    return config, read_state(folder), read_tokenizer(folder, family.tokenizer) if family.tokenizer else None


def load_hub(folder: str | Path) -> tuple[str, nn.Module, AnyTokenizer, dict[str, Any]]:
    """Load a published checkpoint.

    Args:
        folder: in the hub's layout, or of the sentence-transformers package, with the model in it or in a subfolder.

    Returns:
        The family's `job`, such as "translate"; the module; the tokenizer, None if the folder has none; and a
        configuration with the fields of config.json under "published".

    Raises:
        CheckpointError: as for `read_hub`, and weights that do not match the configuration.
        UnsupportedError: a field with an unsupported value.
    """
    folder = Path(folder)
    layout = layout_of(folder)
    model_folder = folder if layout is None else layout.transformer
    published, state, tokenizer = read_hub(model_folder)
    family = FAMILIES[published["model_type"]]
    path = model_folder / CONFIG
    try:
        module = family.read(published, state)
    except (UnsupportedError, CheckpointError) as error:
        error.args = (f"{path}: {error}",)  # adds the file's name
        raise
    except KeyError as error:
        raise CheckpointError(f"{path} lacks the field {error}") from error
    except BUILD_ERRORS as error:
        raise CheckpointError(f"{path} does not describe a model: {error}") from error
    if tokenizer is not None:
        tokenizer.rows = vocabulary_size(module.config)
    if layout is not None and layout.lowercase and isinstance(tokenizer, PublishedTokenizer):
        tokenizer.lowercase()
    config: dict[str, Any] = {"published": published}
    if isinstance(own := published.get(OWN), dict):
        config["training"] = own
        if own.get("max_length") == published.get("max_length"):  # written for others: regard's depends on the source
            published.pop("max_length", None)
    return family.job, module, tokenizer, config


def layout_of(folder: Path) -> Layout | None:
    """The layout of a folder of the sentence-transformers package; None for other folders. See `read_layout`."""
    return read_layout(folder, lambda path: check_inside(folder, path))


def download(name: str) -> Path:
    """Download a model from the hub, unless it is in the cache.

    Args:
        name: such as "sentence-transformers/all-MiniLM-L6-v2".

    Returns:
        The folder in the cache of huggingface_hub.

    Raises:
        CheckpointError: huggingface_hub is not installed, or cannot download the model.
    """
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise CheckpointError(
            f"{name} does not exist; expected the folder of a model. To download a model of this name from the hub: "
            "pip install huggingface-hub"
        ) from error
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=FILES))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{name} does not exist; expected the folder of a model. Nor can a model of this name be downloaded from "
            f"the hub: {' '.join(str(error).split())}"
        ) from error


def read_state(folder: Path) -> LazyState:
    """Open the tensors of a folder, in one file or in the files of its index.

    Args:
        folder: in the hub's layout.

    Returns:
        The tensors, which are read lazily.

    Raises:
        CheckpointError: a file that is missing, damaged, pickled or outside of the folder, or whose tensors are not
            those in the index.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        file = open_weights(check_inside(folder, require_file(folder, WEIGHTS)))
        return LazyState(dict.fromkeys(file.keys(), file))
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f'{index}: "weight_map" is {show(weight_map)}; expected the file of each tensor by name')
    for name in sorted(set(weight_map.values())):
        if name != PurePosixPath(name).name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index} has the file name {name!r}; expected safetensors files in the same folder")
    files = sorted(set(weight_map.values()))
    shards = {name: open_weights(check_inside(folder, require_file(folder, name))) for name in files}
    tensors = {name: set(file.keys()) for name, file in shards.items()}
    lost = [f"{name} in {file}" for name, file in weight_map.items() if name not in tensors[file]]
    extra = [f"{name} in {file}" for file, names in tensors.items() for name in names if weight_map.get(name) != file]
    if mismatches := describe_mismatches({"missing": lost, "not in the index": sorted(extra)}):
        raise CheckpointError(f"{index} does not match the files beside it: {mismatches}")
    return LazyState({name: shards[file] for name, file in weight_map.items()})
