"""The settings of a published checkpoint: each field of config.json and generation_config.json is read or refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from regard.attention.check import show
from regard.checkpoints.families import FAMILIES, Family
from regard.checkpoints.folder import CONFIG, read_json
from regard.checkpoints.generation import GENERATION_FIELDS, IRRELEVANT, MARKS, ONLY, ONLY_IN_SAMPLING, READ
from regard.errors import CheckpointError, UnsupportedError, nearest
from regard.models.published import ConfigFields
from regard.models.seq2seq import Seq2Seq
from regard.models.text_encoder import TextEncoder

GENERATION = "generation_config.json"
PAD = "pad_token_id"


class Use(NamedTuple):
    """What is made of a field: "read", "refused" unless it has one of some values, or "irrelevant"."""

    kind: Literal["read", "refused", "irrelevant"]
    note: str  # what it is here, the values that are not refused, or why it is irrelevant


def config_uses(name: str) -> dict[str, Use]:
    """What is made of the fields of config.json.

    Args:
        name: of the family, a `model_type`.

    Returns:
        The use of each field that is known; those of generation, which old files have as well, are in
        `generation_uses`.
    """
    fields = FAMILIES[name].fields
    aliased = {alias: Use("read", f"`{field}` by another name") for alias, field in fields.aliases.items()}
    return {
        **{field: Use("irrelevant", why) for field, why in fields.irrelevant.items()},
        **{field: Use("refused", _unless(values)) for field, values in fields.supported.items()},
        **{field: Use("read", "") for field in fields.read},
        **aliased,
    }


def generation_uses() -> dict[str, Use]:
    """What is made of the fields of generation_config.json.

    Returns:
        The use of each field that is known.
    """
    return {
        **{field: Use("read", note) for field, note in READ.items()},
        **{field: Use("refused", _unless((*values, None))) for field, values in ONLY.items()},
        **{
            field: Use("refused", f"{_unless((*values, None))}; without `do_sample`, irrelevant")
            for field, values in ONLY_IN_SAMPLING.items()
        },
        **{field: Use("irrelevant", why) for field, why in IRRELEVANT.items()},
    }


def _unless(values: tuple[Any, ...]) -> str:
    return "unless " + " or ".join(f"`{json.dumps(x)}`" for x in values)


def family_of(config: Mapping[str, Any], path: Path) -> Family:
    """The family that a config.json names.

    Args:
        config: its fields.
        path: of the file, for messages.

    Returns:
        The family.

    Raises:
        CheckpointError: no family, or one that is not known.
    """
    kind = config.get("model_type")
    if kind is None:
        raise CheckpointError(
            f'{path} has no "model_type", which says what kind of published model it is, nor the "format" of one of '
            f'regard\'s own; write "model_type": "bert" into it, or another of {", ".join(FAMILIES)}'
        )
    if kind not in list(FAMILIES):
        raise CheckpointError(f"{path}: unknown model_type {show(kind)}; {nearest(str(kind), FAMILIES)}")
    return FAMILIES[kind]


def read_settings(folder: Path) -> dict[str, Any]:
    """The fields of both files as one: those of generation come from generation_config.json, if there is one.

    As in the transformers package, config.json then says nothing of generation but its marks, where
    generation_config.json has none.

    Args:
        folder: in the hub's layout.

    Returns:
        The fields by their own names.

    Raises:
        CheckpointError: a file that is missing or damaged, or a family that is not known.
        UnsupportedError: a field that is not known, or that is said twice by two names.
    """
    path = folder / CONFIG
    config = read_json(path)
    family = family_of(config, path)
    config = _renamed(path, config, family.fields)
    generates = not issubclass(family.module, TextEncoder)
    _check_known(path, config, family.fields, GENERATION_FIELDS)
    if not generates or not (folder / GENERATION).is_file():
        return config
    generation = read_json(folder / GENERATION)
    _check_known(folder / GENERATION, generation, None, GENERATION_FIELDS)
    said = {name: x for name, x in generation.items() if x is not None and name in GENERATION_FIELDS}
    kept = {name: x for name, x in config.items() if name in MARKS or name not in GENERATION_FIELDS}
    reads = issubclass(family.module, Seq2Seq)
    if reads and kept.get(PAD) is not None:  # sources are padded with what the model was trained with
        said.pop(PAD, None)
    return {**kept, **said, **_ends(folder, config, said, reads=reads)}


def _renamed(path: Path, config: Mapping[str, Any], fields: ConfigFields) -> dict[str, Any]:
    """The fields by their own names."""
    found = dict(config)
    for alias, name in fields.aliases.items():
        if alias not in found:
            continue
        x = found.pop(alias)
        if found.setdefault(name, x) != x:
            raise UnsupportedError(
                f"{path}: {alias}={show(x)} and {name}={show(found[name])} are one field of {fields.title}; expected "
                "the same value, or one of them"
            )
    return found


def _check_known(path: Path, config: Mapping[str, Any], fields: ConfigFields | None, others: frozenset[str]) -> None:
    """Raise UnsupportedError for a field with a value that nobody here knows; private ones start with "_"."""
    known = others if fields is None else others | {*fields.read, *fields.supported, *fields.irrelevant}
    for name, x in config.items():
        if name not in known and x is not None and not name.startswith("_"):
            title = "generation" if fields is None else fields.title
            raise UnsupportedError(
                f"{path}: {name}={show(x):.60} is no field of {title} that regard knows, and may change what is "
                "computed. If it changes nothing, take it out of the file"
            )


def _ends(
    folder: Path, config: Mapping[str, Any], generation: Mapping[str, Any], *, reads: bool
) -> dict[str, list[int]]:
    """The end marks, first the one of config.json, with which the sources of a model end that `reads` some."""
    own, said = config.get("eos_token_id"), generation.get("eos_token_id")
    own = own[0] if isinstance(own, list) and own else own
    if said is None or own is None or said == own:
        return {}
    ends = said if isinstance(said, list) else [said]
    if own in ends:
        return {"eos_token_id": [own, *(token for token in ends if token != own)]}
    if reads:
        raise UnsupportedError(
            f"{folder / GENERATION}: eos_token_id={show(said)} without config.json's {show(own)}, which ends sources, "
            "is not supported; expected that mark among them"
        )
    return {}
