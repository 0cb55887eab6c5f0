"""Models as the transformers package reads them: a folder in the layout of the Hugging Face hub."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from regard.data.published_tokenizer import PublishedTokenizer
from regard.data.tokenizer import Tokenizer
from regard.errors import UnsupportedError
from regard.trained.encoder import Encoder
from regard.trained.families import FAMILIES
from regard.trained.folder import CONFIG, TOKENIZER, WEIGHTS, write_all
from regard.trained.sentence_transformers import layout_files

TOKENIZER_CONFIG = "tokenizer_config.json"


def export_hf(model: Any, folder: str | Path) -> None:
    """Write a model as a folder that the transformers package loads to the same outputs.

    Args:
        model: what `regard.load` gives, or a module alone: BERT and its kin, GPT, Llama, T5, or a Transformer that
            Marian's layout can say. A tokenizer that the hub has no layout for, such as one that regard trained, is
            left out.
        folder: made if missing; other files of it stay.

    Raises:
        UnsupportedError: a model that no published layout can say.
        OSError: a folder that cannot be written, a full disk.
    """
    module = getattr(model, "module", model)
    family = next((family for family in FAMILIES.values() if isinstance(module, family.module)), None)
    if not isinstance(module, nn.Module) or family is None:
        known = ", ".join(dict.fromkeys(family.module.__name__ for family in FAMILIES.values()))
        raise UnsupportedError(f"export_hf: {type(module).__name__} has no published layout; expected one of {known}")
    fields, state = family.write(module)
    stored = {name: x.detach().to("cpu").contiguous() for name, x in _once(state).items()}
    fields["dtype"] = str(next(x.dtype for x in stored.values())).removeprefix("torch.")
    writers = {
        CONFIG: lambda path: path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8"),
        WEIGHTS: lambda path: safetensors.torch.save_file(stored, path, {"format": "pt"}),
    }
    tokenizer = getattr(model, "tokenizer", None) if model is not module else None
    if isinstance(tokenizer, PublishedTokenizer):
        said = {f"{role}_token": token for role, token in tokenizer.roles.items()}
        said |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": getattr(module, "longest", None)}
        said = {name: x for name, x in said.items() if x is not None}
        writers[TOKENIZER] = tokenizer.save
        writers[TOKENIZER_CONFIG] = lambda path: path.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    elif tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        writers |= {name: _bytes(content) for name, content in tokenizer.files().items()}
    if isinstance(model, Encoder):
        files = layout_files(model.embedding, module.config.embed_dim)
        writers |= {name: _bytes(content) for name, content in files.items()}
    write_all(Path(folder), writers)


def _bytes(content: bytes) -> Any:
    return lambda path: path.write_bytes(content)


def _once(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without second names of the same one, which a reader ties again."""
    seen: set[tuple[int, Any]] = set()
    kept = {}
    for name, x in state.items():
        place = (x.data_ptr(), x.shape)
        if place not in seen or not x.numel():
            kept[name] = x
        seen.add(place)
    return kept
