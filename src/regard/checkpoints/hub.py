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

from regard.attention.check import show
from regard.checkpoints.families import FAMILIES
from regard.checkpoints.folder import CONFIG, TOKENIZER, WEIGHTS, AnyTokenizer, need, open_weights, read_json
from regard.checkpoints.hub_files import inside
from regard.checkpoints.hub_tokenizer import read_tokenizer
from regard.checkpoints.sentence_transformers import MODULES, Layout, read_layout
from regard.checkpoints.settings import read_settings
from regard.data.published_tokenizer import PublishedTokenizer
from regard.data.tokenizer import Tokenizer
from regard.errors import CheckpointError, UnsupportedError
from regard.models.published import WRONG, misfits
from regard.models.registry import vocabulary_size

INDEX = "model.safetensors.index.json"
HUB_NAME = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")  # owner/model
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
    return config, read_state(folder), read_tokenizer(folder, family.tokenizer) if family.tokenizer else None


def load_hub(folder: str | Path) -> tuple[str, nn.Module, AnyTokenizer, dict[str, Any]]:
    """A published checkpoint: its job, module, tokenizer and configuration.

    Args:
        folder: in the hub's layout, or of the sentence-transformers package, whose model may stand in a folder within.

    Returns:
        The family's `job`, such as "translate"; the module; the tokenizer, None if the folder has none; and the fields
        of config.json under "published", with "embedding" where a folder says how texts become vectors.

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
    except (UnsupportedError, CheckpointError) as error:
        error.args = (f"{path}: {error}",)  # models know of no files
        raise
    except KeyError as error:
        raise CheckpointError(f"{path} lacks the field {error}") from error
    except WRONG as error:
        raise CheckpointError(f"{path} describes no model: {error}") from error
    if tokenizer is not None:
        tokenizer.rows = vocabulary_size(module.config)
    if layout is not None and layout.lowercase and isinstance(tokenizer, PublishedTokenizer):
        tokenizer.lowercase()
    found: dict[str, Any] = {"published": config}
    if isinstance(own := config.get(OWN), dict):
        found["training"] = own
        if own.get("max_length") == config.get("max_length"):  # which is for others: regard's depends on the source
            config.pop("max_length", None)
    return family.job, module, tokenizer, found


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
