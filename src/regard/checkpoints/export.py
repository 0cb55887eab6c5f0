"""Models as the transformers package reads them: a folder in the layout of the Hugging Face hub."""

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
from regard.checkpoints.generation import MARKS as MARK_FIELDS
from regard.checkpoints.hub import OWN
from regard.checkpoints.sentence_transformers import TOKENIZER_CONFIG, layout_files
from regard.checkpoints.settings import GENERATION
from regard.data.tokenizer import MARKS, Tokenizer
from regard.decode.search import Beam
from regard.errors import CheckpointError, UnsupportedError
from regard.models.pooling import Embedding
from regard.models.seq2seq import Seq2Seq
from regard.models.text_encoder import TextEncoder
from regard.models.vit import ViT


def export_hf(model: Any, folder: str | Path) -> None:
    """Write a model as a folder that the transformers package loads to the same outputs.

    A translator of regard's own stands in the layout of Pegasus, or of Marian if its norms stand after each part; a GPT
    in that of GPT-2. Its tokenizer and its search go with it, and `regard.load` reads the folder back.

    Args:
        model: what `regard.load` gives, or a module alone: BERT and its kin, GPT, Llama, T5, a ViT, or a
            Transformer that Marian's or Pegasus's layout can say.
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
    runner = None if model is module else model
    fields, state = family.write(module)
    stored = {name: x.detach().to("cpu").contiguous() for name, x in _once(state).items()}
    fields["dtype"] = str(next(x.dtype for x in stored.values())).removeprefix("torch.")
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
        fields = {name: x for name, x in fields.items() if name in MARK_FIELDS or name not in GENERATION_FIELDS}
    longest = runner.longest if _translates(runner) else getattr(module, "longest", None)
    files |= {CONFIG: _json(fields), **_tokenizer_files(module, tokenizer, longest)}
    embedding = getattr(runner, "embedding", None)
    if isinstance(embedding, Embedding):
        files |= layout_files(embedding, module.config.embed_dim)
    writers: dict[str, Callable[[Path], object]] = {
        name: partial(Path.write_bytes, data=content) for name, content in files.items()
    }
    writers[WEIGHTS] = lambda path: safetensors.torch.save_file(stored, path, {"format": "pt"})
    write_all(Path(folder), writers)


def _generation(runner: Any, fields: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of generation_config.json: the marks, and how the checkpoint or the runner looks for texts."""
    known = GENERATION_FIELDS - {*IRRELEVANT}
    found = {name: x for name, x in fields.items() if name in known and x is not None}
    if published:
        return {**found, **{name: x for name, x in published.items() if name in known - {*MARK_FIELDS}}}
    if _translates(runner):
        longest = 2 * runner.longest + 16  # regard's bound is twice the source and 16 more, whatever the source
        search = {"num_beams": Beam().size, "length_penalty": Beam().length_penalty, "early_stopping": False}
        found |= {**search, "max_length": min(longest + 1, fields.get("max_position_embeddings", longest))}
    elif runner is not None:
        found["max_new_tokens"] = NEW_TOKENS
    return found


def _own_settings(runner: Any, generation: Mapping[str, Any]) -> dict[str, Any]:
    """What others have no word for: that the tokenizer is regard's, and what of a translator's lengths is its own."""
    if not _translates(runner):
        return {"tokenizer": True}
    lengths = {"max_tokens": runner.longest, "usual_tokens": runner.usual}
    return {"tokenizer": True, **lengths, "max_length": generation.get("max_length")}


def _tokenizer_of(runner: Any) -> Any:
    """The tokenizer of a runner, None if there is none."""
    try:
        return getattr(runner, "tokenizer", None)
    except CheckpointError:  # of a folder without one
        return None


def _translates(runner: Any) -> bool:
    return getattr(runner, "job", None) == "translate"


def _tokenizer_files(module: nn.Module, tokenizer: Any, longest: int | None) -> dict[str, bytes]:
    """The files of a tokenizer, none for none."""
    if tokenizer is None:
        return {}
    if not isinstance(tokenizer, Tokenizer):
        files: dict[str, bytes] = tokenizer.files(max_length=longest)
        return files
    said = {f"{role}_token": token for role, token in zip(("pad", "bos", "eos"), MARKS, strict=True)}
    said |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest}
    said |= {"clean_up_tokenization_spaces": False, "split_special_tokens": True}
    template = "$A </s>" if isinstance(module, Seq2Seq) else "<s> $A"
    settings = {name: x for name, x in said.items() if x is not None}
    return {TOKENIZER: _with_marks(tokenizer, template), TOKENIZER_CONFIG: _json(settings)}


def _with_marks(tokenizer: Tokenizer, template: str) -> bytes:
    """The tokenizer.json of a tokenizer of regard's, which adds marks by itself as the package's readers expect it."""
    subwords = tokenizers.Tokenizer.from_str(_saved(tokenizer).decode())
    subwords.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    marks = [(mark, subwords.token_to_id(mark)) for mark in MARKS if mark in template]
    subwords.post_processor = processors.TemplateProcessing(single=template, special_tokens=marks)
    return subwords.to_str().encode()


def _saved(tokenizer: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, TOKENIZER)
        tokenizer.save(path)
        return path.read_bytes()


def _json(plain: object) -> bytes:
    return (json.dumps(plain, indent=2) + "\n").encode()


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
