"""Options from the fields of a dataclass, from dotted names and from a configuration file.

    --learning-rate 0.001                                                   a field
    --attention.normalizer entmax --attention.normalizer.alpha 1.5          nested settings
    --model.embed_dim 512                                                   a field of the model
    --config run.toml                                                       any of these, in a file

The file uses the names of the options; nested settings are tables:

    learning-rate = 0.001
    [model]
    name = "transformer"
    embed_dim = 512
    [attention]
    normalizer = { kind = "entmax", alpha = 1.5 }

The command line overrides the file.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import click

from regard.cli.command import Argument, Command, Option
from regard.errors import ConfigError, DataError, nearest

KIND = "kind"  # key in nested settings of the value of --attention.normalizer itself
METAVARS = {int: "N", float: "X", str: "TEXT"}
Nested = dict[str, Any]


class DataclassCommand(Command):
    """Verb whose options are the fields of a dataclass.

    Args:
        name, run, params, examples: as of `Command`.
        options: the dataclass. The metadata of a field have `help`, `group` (heading), `flag` (if it differs from the
            field's name) and `metavar`. A field that is a mapping takes nested settings.
        nested: names of the fields that are mappings, by the first word of their dotted names.
        types: types of fields, for shell completion.
    """

    def __init__(
        self,
        name: str,
        run: Any,
        *,
        options: type,
        nested: Mapping[str, str],
        params: Sequence[click.Parameter],
        examples: Sequence[str],
        types: Mapping[str, click.ParamType[str]] | None = None,
    ) -> None:
        plain = [parameter(field) for field in fields(options) if field.name not in nested.values()]
        for param in plain:
            param.type = (types or {}).get(param.name or "", param.type)
        super().__init__(name, run, params=[*plain, *params], examples=examples)
        self.nested = nested
        help_texts = {field.name: field.metadata["help"] for field in fields(options)}
        self.nested_help = {word: help_texts[name] for word, name in nested.items()}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        args, from_line = take_dotted(ctx, args, list(self.nested))
        config = self.values_of(ctx, args).get("config")
        from_file: dict[str, Nested] = {}
        if isinstance(config, str):
            ctx.default_map, from_file = self._from_file(ctx, config)
        rest = super().parse_args(ctx, args)
        for word, field in self.nested.items():
            ctx.params[field] = merged(from_file.get(word, {}), from_line[word]) or None
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Nested options"):
            formatter.write_dl([(f"--{word}.NAME VALUE", text) for word, text in self.nested_help.items()])

    def _from_file(self, ctx: click.Context, file: str) -> tuple[Nested, dict[str, Nested]]:
        """Options of a file by field, and its nested settings by their first word."""
        by_name = {_name(param): param for param in self.params if _name(param) != "config"}
        plain: Nested = {}
        nested: dict[str, Nested] = {}
        for key, x in read_file(file).items():
            name = key.replace("_", "-")
            if name in self.nested and isinstance(x, Mapping):
                nested[name] = dict(x)
                if name in by_name and "name" in x:  # [model] name = "rnn", as --model rnn
                    plain[by_name[name].name or ""] = nested[name].pop("name")
            elif name in by_name:
                plain[by_name[name].name or ""] = _converted(ctx, file, key, by_name[name], x)
            elif name in self.nested:
                raise ConfigError(f"{file}: {key}={x!r}; expected a table of settings by name")
            else:
                raise ConfigError(f"{file}: unknown option {key!r}; {nearest(name, [*by_name, *self.nested])}")
        return plain, nested


def parameter(field: Field[Any]) -> click.Parameter:
    """Option of a field; an argument if it takes any number of values."""
    kind, several = _kind(field.type)
    about = field.metadata
    if several == -1:
        return Argument(
            field.name, about=about["help"], nargs=-1, metavar=f"[{field.name.upper().removesuffix('S')}]..."
        )
    metavar = about.get("metavar", METAVARS.get(kind))
    flag = about.get("flag", f"--{field.name.replace('_', '-')}")
    return Option(
        [flag, field.name],
        type=None if kind is bool else kind,
        is_flag=kind is bool,
        nargs=several,
        default=field.default,
        show_default=not isinstance(field.default, bool) and field.default is not None,
        help=about["help"],
        metavar=" ".join(metavar) if isinstance(metavar, tuple) else metavar,
        heading=str(about.get("group", "options")).capitalize(),
    )


def _kind(annotation: Any) -> tuple[type, int]:
    """Type of one value, and the number of values; -1 for any number."""
    if isinstance(annotation, UnionType):
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    if get_origin(annotation) is tuple:
        several = get_args(annotation)
        return several[0], -1 if several[-1] is Ellipsis else len(several)
    return annotation, 1


def take_dotted(ctx: click.Context, args: Sequence[str], words: Sequence[str]) -> tuple[list[str], dict[str, Nested]]:
    """Split `--word.name[.setting] value` off a command line.

    Args:
        ctx: context of the command, for errors.
        args: the command line.
        words: first words that are known.

    Returns:
        The rest of the command line, and the settings by word and name.

    Raises:
        NoSuchOption: an unknown first word.
        UsageError: a missing value, or a setting that is given twice.
    """
    rest: list[str] = []
    by_word: dict[str, Nested] = {word: {} for word in words}
    remaining = iter(args)
    for arg in remaining:
        flag, equals, text = arg.partition("=")
        if arg == "--":
            rest += [arg, *remaining]
            break
        if not flag.startswith("--") or "." not in flag:
            rest.append(arg)
            continue
        word, *path = flag.removeprefix("--").split(".")
        if word not in words:
            known = [f"--{word}.{'.'.join(path)}" for word in words]
            raise click.NoSuchOption(flag, possibilities=known, ctx=ctx)
        x = text if equals else next(remaining, None)
        if x is None or not all(path) or len(path) > 2:
            raise click.UsageError(f"{flag} must be --{word}.NAME VALUE or --{word}.NAME.SETTING VALUE", ctx)
        settings = by_word[word].setdefault(path[0], {})
        key = path[1] if len(path) == 2 else KIND
        if key in settings:
            raise click.UsageError(f"{flag} is given 2 times; give it once", ctx)
        settings[key] = value(x)
    return rest, {word: {name: _short(x) for name, x in names.items()} for word, names in by_word.items()}


def value(text: str) -> Any:
    """Value of a text: parsed as JSON if possible, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def merged(from_file: Nested, from_line: Nested) -> Nested:
    """Settings of a file, overridden by those of the command line; a new kind drops the settings of the old one."""
    result = dict(from_file)
    for name, x in from_line.items():
        old = from_file.get(name)
        refined = isinstance(x, Mapping) and KIND not in x
        if refined and old is not None:
            result[name] = {**(old if isinstance(old, Mapping) else {KIND: old}), **x}
        else:
            result[name] = x
    return result


def _short(settings: Nested) -> Any:
    return settings[KIND] if set(settings) == {KIND} else settings


def read_file(file: str) -> Nested:
    """Content of a JSON or TOML file.

    Raises:
        ConfigError: another suffix.
        DataError: a file that cannot be parsed, or is no object.
    """
    readers = {".json": json.loads, ".toml": tomllib.loads}
    path = Path(file)
    if path.suffix not in readers:
        raise ConfigError(
            f"{file} ends in {path.suffix!r}; expected a configuration file that ends in {' or '.join(readers)}"
        )
    try:
        content = readers[path.suffix](path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} holds a {type(content).__name__}; expected an object of options by name")
    return content


def _name(param: click.Parameter) -> str:
    return max(param.opts, key=len).removeprefix("--")


def _converted(ctx: click.Context, file: str, key: str, param: click.Parameter, x: Any) -> Any:
    """Value of a file, converted and checked like one of the command line."""
    if isinstance(param, click.Option) and param.is_flag:
        expected, valid = "true or false", isinstance(x, bool)
    elif param.nargs != 1:
        expected = "a list of texts" if param.nargs == -1 else f"a list of {param.nargs} texts"
        valid = isinstance(x, list) and all(isinstance(one, str) for one in x) and param.nargs in (-1, len(x))
    else:
        expected = "a number" if param.type in (click.INT, click.FLOAT) else "a text"
        valid = isinstance(x, str | int | float) and not isinstance(x, bool)
    if not valid:
        raise ConfigError(f"{file}: {key}={x!r}; expected {expected}")
    if isinstance(x, bool | list):
        return x
    try:
        return param.type.convert(str(x), param, ctx)
    except click.BadParameter as error:
        raise ConfigError(f"{file}: {key}: {error.message}") from error
