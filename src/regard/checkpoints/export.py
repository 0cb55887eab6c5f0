"""Export of models in the layout of the Hugging Face hub, for the transformers package."""

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import tokenizers
from tokenizers import AddedToken, processors
from torch import Tensor, nn

from regard.checkpoints.families import FAMILIES
from regard.checkpoints.folder import CONFIG, TOKENIZER, WEIGHTS, write_all
from regard.checkpoints.generation import GENERATION_FIELDS, IRRELEVANT, NEW_TOKENS
from regard.checkpoints.generation import MARKS as TOKEN_FIELDS
from regard.checkpoints.hub import OWN
from regard.checkpoints.sentence_transformers import TOKENIZER_CONFIG, layout_files
from regard.checkpoints.settings import GENERATION
from regard.data.tokenizer import MARKS, Tokenizer
from regard.decode.search import Beam
from regard.errors import CheckpointError, UnsupportedError
from regard.layers.quantized_linear import check_not_int8
from regard.models.pooling import Embedding
from regard.models.seq2seq import Seq2Seq
from regard.models.text_encoder import TextEncoder
from regard.models.vit import ViT
from regard.models.whisper import Whisper


def export_hf(model: Any, folder: str | Path) -> None:
    """Export a model to a folder from which the transformers package loads it, with the same outputs.

    A translation model trained by regard is written in Pegasus's layout, or in Marian's if it is post-norm; a GPT in
    GPT-2's. Tokenizer and generation settings are included, and `regard.load` can load the folder too.

    Args:
        model: the result of `regard.load`, or a module alone: a Bert, GPT, Llama, T5, ViT or Whisper, or a Transformer
            that Marian's or Pegasus's layout can represent.
        folder: created if missing; other files in it are kept.

    Raises:
        UnsupportedError: a model that no published layout can represent, or one with int8 weights.
        OSError: the folder cannot be written, or the disk is full.
    """
    module = getattr(model, "module", model)
    family = next((family for family in FAMILIES.values() if isinstance(module, family.module)), None)
    if not isinstance(module, nn.Module) or family is None:
        known = ", ".join(dict.fromkeys(family.module.__name__ for family in FAMILIES.values()))
        raise UnsupportedError(f"export_hf: {type(module).__name__} has no published layout; expected one of {known}")
    check_not_int8("export_hf", module)
    runner = None if model is module else model
    fields, state = family.write(module)
    tensors = {name: x.detach().to("cpu").contiguous() for name, x in _without_aliases(state).items()}
    fields["dtype"] = str(next(x.dtype for x in tensors.values())).removeprefix("torch.")
    tokenizer, files = _tokenizer_of(runner), {}
    if isinstance(module, ViT):
        files |= getattr(runner, "extra_files", dict)()
        labels = getattr(runner, "labels", [])
        if labels:
            fields |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    elif not isinstance(module, TextEncoder):
        published = getattr(runner, "config", {}).get("published")
        published = published if isinstance(published, dict) else {}
        fields |= {name: published[name] for name in ("task_specific_params", "prefix") if name in published}
        generation = _generation(runner, fields, published)
        files[GENERATION] = _json(generation)
        if isinstance(tokenizer, Tokenizer):
            fields[OWN] = _own_settings(runner, generation)
        fields = {name: x for name, x in fields.items() if name in TOKEN_FIELDS or name not in GENERATION_FIELDS}
    if isinstance(module, Whisper):
        files |= getattr(runner, "extra_files", dict)()  # how sound becomes model inputs
    max_length = runner.max_source_length if _translates(runner) else getattr(module, "max_length", None)
    files |= {CONFIG: _json(fields), **_tokenizer_files(module, tokenizer, max_length)}
    embedding = getattr(runner, "embedding", None)
    if isinstance(embedding, Embedding):
        files |= layout_files(embedding, module.config.embed_dim)
    writers: dict[str, Callable[[Path], object]] = {
        name: partial(Path.write_bytes, data=content) for name, content in files.items()
    }
    writers[WEIGHTS] = lambda path: safetensors.torch.save_file(tensors, path, {"format": "pt"})
    write_all(Path(folder), writers)


def _generation(runner: Any, fields: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of generation_config.json: special tokens, and the generation settings of checkpoint or runner."""
    known = GENERATION_FIELDS - {*IRRELEVANT}
    generation = {name: x for name, x in fields.items() if name in known and x is not None}
    if published:
        return {**generation, **{name: x for name, x in published.items() if name in known - {*TOKEN_FIELDS}}}
    if _translates(runner):
        max_length = 2 * runner.max_source_length + 16  # the limit of `twice_as_long` for the longest source
        search = {"num_beams": Beam().size, "length_penalty": Beam().length_penalty, "early_stopping": False}
        generation |= {**search, "max_length": min(max_length + 1, fields.get("max_position_embeddings", max_length))}
    elif runner is not None:
        generation["max_new_tokens"] = NEW_TOKENS
    return generation


def _own_settings(runner: Any, generation: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that only regard has: that the tokenizer is its own, and a translation model's lengths."""
    if not _translates(runner):
        return {"tokenizer": True}
    lengths = {"max_tokens": runner.max_source_length, "usual_tokens": runner.split_length}
    return {"tokenizer": True, **lengths, "max_length": generation.get("max_length")}


def _tokenizer_of(runner: Any) -> Any:
    """The tokenizer of a runner; None if it has none."""
    try:
        return getattr(runner, "tokenizer", None)
    except CheckpointError:  # loaded from a folder without a tokenizer
        return None


def _translates(runner: Any) -> bool:
    return getattr(runner, "job", None) == "translate"


def _tokenizer_files(module: nn.Module, tokenizer: Any, max_length: int | None) -> dict[str, bytes]:
    """The files of a tokenizer by name; empty without one."""
    if tokenizer is None:
        return {}
    if not isinstance(tokenizer, Tokenizer):
        files: dict[str, bytes] = tokenizer.files(max_length=max_length)
        return files
    fields = {f"{role}_token": token for role, token in zip(("pad", "bos", "eos"), MARKS, strict=True)}
    fields |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length}
    fields |= {"clean_up_tokenization_spaces": False, "split_special_tokens": True}
    template = "$A </s>" if isinstance(module, Seq2Seq) else "<s> $A"
    fields = {name: x for name, x in fields.items() if x is not None}
    return {TOKENIZER: _with_template(tokenizer, template), TOKENIZER_CONFIG: _json(fields)}


def _with_template(tokenizer: Tokenizer, template: str) -> bytes:
    """The tokenizer.json of regard's own tokenizer, with a post-processor that adds special tokens."""
    subwords = tokenizers.Tokenizer.from_str(_tokenizer_json(tokenizer).decode())
    subwords.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in MARKS])
    special = [(token, subwords.token_to_id(token)) for token in MARKS if token in template]
    subwords.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return subwords.to_str().encode()


def _tokenizer_json(tokenizer: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, TOKENIZER)
        tokenizer.save(path)
        return path.read_bytes()


def _json(plain: object) -> bytes:
    return (json.dumps(plain, indent=2) + "\n").encode()


def _without_aliases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, shared ones under their first name only; readers tie them again."""
    seen: set[tuple[int, Any]] = set()
    tensors = {}
    for name, x in state.items():
        storage = (x.data_ptr(), x.shape)
        if storage not in seen or not x.numel():
            tensors[name] = x
        seen.add(storage)
    return tensors
