"""Fields of a published checkpoint's config.json and generation_config.json: read, refused or irrelevant."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from regard.attention.check import show
from regard.checkpoints.families import FAMILIES, Family
from regard.checkpoints.folder import CONFIG, read_json
from regard.checkpoints.generation import GENERATION_FIELDS, IRRELEVANT, MARKS, READ, SUPPORTED, SUPPORTED_IN_SAMPLING
from regard.errors import CheckpointError, UnsupportedError, nearest
from regard.models.published import ConfigFields
from regard.models.seq2seq import Seq2Seq
from regard.models.text_encoder import TextEncoder

GENERATION = "generation_config.json"
PAD = "pad_token_id"


class Use(NamedTuple):
    """How a field is used: "read", "refused" except for some values, or "irrelevant"."""

    kind: Literal["read", "refused", "irrelevant"]
    note: str  # what the field becomes, the supported values, or why it is irrelevant


def config_uses(name: str) -> dict[str, Use]:
    """The use of each known field of config.json.

    Args:
        name: of the family, a `model_type`.

    Returns:
        Uses by field, without those of generation, which old files have too: see `generation_uses`.
    """
    fields = FAMILIES[name].fields
    aliased = {alias: Use("read", f"another name of `{field}`") for alias, field in fields.aliases.items()}
    return {
        **{field: Use("irrelevant", why) for field, why in fields.irrelevant.items()},
        **{field: Use("refused", _unless(values)) for field, values in fields.supported.items()},
        **{field: Use("read", "") for field in fields.read},
        **aliased,
    }


def generation_uses() -> dict[str, Use]:
    """The use of each known field of generation_config.json."""
    return {
        **{field: Use("read", note) for field, note in READ.items()},
        **{field: Use("refused", _unless((*values, None))) for field, values in SUPPORTED.items()},
        **{
            field: Use("refused", f"{_unless((*values, None))}; without `do_sample`, irrelevant")
            for field, values in SUPPORTED_IN_SAMPLING.items()
        },
        **{field: Use("irrelevant", why) for field, why in IRRELEVANT.items()},
    }


def _unless(values: tuple[Any, ...]) -> str:
    return "unless " + " or ".join(f"`{json.dumps(x)}`" for x in values)


def family_of(config: Mapping[str, Any], path: Path) -> Family:
    """The family of a config.json.

    Args:
        config: its fields.
        path: of the file, for messages.

    Returns:
        The family.

    Raises:
        CheckpointError: a missing or unknown "model_type".
    """
    kind = config.get("model_type")
    if kind is None:
        raise CheckpointError(
            f'{path} has neither a "model_type", as published checkpoints, nor a "format", as those of regard; add '
            f'"model_type": "bert", or another of {", ".join(FAMILIES)}'
        )
    if kind not in list(FAMILIES):
        raise CheckpointError(f"{path}: unknown model_type {show(kind)}; {nearest(str(kind), FAMILIES)}")
    return FAMILIES[kind]


def read_settings(folder: Path) -> dict[str, Any]:
    """The merged fields of config.json and generation_config.json.

    As in the transformers package, generation fields of config.json are ignored if there is a generation_config.json,
    except for special tokens that it lacks.

    Args:
        folder: in the hub's layout.

    Returns:
        The fields, without aliases.

    Raises:
        CheckpointError: a file that is missing or damaged, or an unknown family.
        UnsupportedError: an unknown field, or two names of one field with different values.
    """
    path = folder / CONFIG
    config = read_json(path)
    family = family_of(config, path)
    config = _resolve_aliases(path, config, family.fields)
    generates = not issubclass(family.module, TextEncoder)
    _check_known(path, config, family.fields, GENERATION_FIELDS)
    if not generates or not (folder / GENERATION).is_file():
        return config
    generation = read_json(folder / GENERATION)
    _check_known(folder / GENERATION, generation, None, GENERATION_FIELDS)
    generation = {name: x for name, x in generation.items() if x is not None and name in GENERATION_FIELDS}
    model_fields = {name: x for name, x in config.items() if name in MARKS or name not in GENERATION_FIELDS}
    is_seq2seq = issubclass(family.module, Seq2Seq)
    if is_seq2seq and model_fields.get(PAD) is not None:  # the padding token of sources is that of training
        generation.pop(PAD, None)
    return {**model_fields, **generation, **_eos_tokens(folder, config, generation, is_seq2seq=is_seq2seq)}


def _resolve_aliases(path: Path, config: Mapping[str, Any], fields: ConfigFields) -> dict[str, Any]:
    """The fields of a configuration with aliases replaced by the fields' own names."""
    resolved = dict(config)
    for alias, name in fields.aliases.items():
        if alias not in resolved:
            continue
        x = resolved.pop(alias)
        if resolved.setdefault(name, x) != x:
            raise UnsupportedError(
                f"{path}: {alias}={show(x)} and {name}={show(resolved[name])} are the same field of {fields.title}; "
                "expected equal values, or only one of them"
            )
    return resolved


def _check_known(path: Path, config: Mapping[str, Any], fields: ConfigFields | None, others: frozenset[str]) -> None:
    """Raise UnsupportedError for an unknown field that is not null; fields that start with "_" are ignored."""
    known = others if fields is None else others | {*fields.read, *fields.supported, *fields.irrelevant}
    for name, x in config.items():
        if name not in known and x is not None and not name.startswith("_"):
            title = "generation" if fields is None else fields.title
            raise UnsupportedError(
                f"{path}: unknown field {name}={show(x):.60} of {title}, which may change what is computed. If it "
                "changes nothing, remove it from the file"
            )


def _eos_tokens(
    folder: Path, config: Mapping[str, Any], generation: Mapping[str, Any], *, is_seq2seq: bool
) -> dict[str, list[int]]:
    """The field "eos_token_id" with config.json's end token first, which also ends an encoder-decoder's sources."""
    eos, generation_eos = config.get("eos_token_id"), generation.get("eos_token_id")
    eos = eos[0] if isinstance(eos, list) and eos else eos
    if generation_eos is None or eos is None or generation_eos == eos:
        return {}
    ends = generation_eos if isinstance(generation_eos, list) else [generation_eos]
    if eos in ends:
        return {"eos_token_id": [eos, *(token for token in ends if token != eos)]}
    if is_seq2seq:
        raise UnsupportedError(
            f"{folder / GENERATION}: eos_token_id={show(generation_eos)} without config.json's {show(eos)}, which ends "
            "sources, is not supported; expected a list with that token"
        )
    return {}
