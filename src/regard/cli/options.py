"""Options that come from the fields of a dataclass, from dotted names, and from a file.

    --learning-rate 0.001                                                   a field
    --attention.normalizer entmax --attention.normalizer.alpha 1.5          a value of nested settings
    --model.embed_dim 512                                                   a field of the model
    --config run.toml                                                       any of these, in a file

A file's names are those of the options, and nested settings are its tables:

    learning-rate = 0.001
    [model]
    name = "transformer"
    embed_dim = 512
    [attention]
    normalizer = { kind = "entmax", alpha = 1.5 }

What the command line says goes before what the file says.
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

KIND = "kind"  # in nested settings, what --attention.normalizer itself says
METAVARS = {int: "N", float: "X", str: "TEXT"}
Nested = dict[str, Any]


class DataclassCommand(Command):
    """A verb whose options are the fields of a dataclass.

    Args:
        name, run, params, examples: as of `Command`.
        options: the dataclass. A field's metadata have `help`, `group` (a heading), `flag` (if it is not the field's
            name) and `metavar`. A field that is a mapping takes nested settings.
        nested: the fields that are mappings, by the first word of their dotted names.
        types: of fields, for the shell's completion.
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
        said = {field.name: field.metadata["help"] for field in fields(options)}
        self.described = {word: said[name] for word, name in nested.items()}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        args, said = take_dotted(ctx, args, list(self.nested))
        config = self.given(ctx, args).get("config")
        written: dict[str, Nested] = {}
        if isinstance(config, str):
            ctx.default_map, written = self._from_file(ctx, config)
        rest = super().parse_args(ctx, args)
        for word, field in self.nested.items():
            ctx.params[field] = merged(written.get(word, {}), said[word]) or None
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Nested options"):
            formatter.write_dl([(f"--{word}.NAME VALUE", said) for word, said in self.described.items()])

    def _from_file(self, ctx: click.Context, file: str) -> tuple[Nested, dict[str, Nested]]:
        """What a file says: of options by field, and of nested settings by their first word."""
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
    """The option of a field, or the argument, if it takes any number of values."""
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
    """The type of one value, and how many there are; -1 for any number."""
    if isinstance(annotation, UnionType):
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    if get_origin(annotation) is tuple:
        several = get_args(annotation)
        return several[0], -1 if several[-1] is Ellipsis else len(several)
    return annotation, 1


def take_dotted(ctx: click.Context, args: Sequence[str], words: Sequence[str]) -> tuple[list[str], dict[str, Nested]]:
    """Take `--word.name[.setting] value` out of a command line.

    Args:
        ctx: of the command, for errors.
        args: the command line.
        words: the first words that there are.

    Returns:
        The rest, and the settings by word and name.

    Raises:
        NoSuchOption: another first word.
        UsageError: a value that is missing, a setting given twice.
    """
    rest: list[str] = []
    said: dict[str, Nested] = {word: {} for word in words}
    left = iter(args)
    for arg in left:
        flag, equals, text = arg.partition("=")
        if arg == "--":
            rest += [arg, *left]
            break
        if not flag.startswith("--") or "." not in flag:
            rest.append(arg)
            continue
        word, *path = flag.removeprefix("--").split(".")
        if word not in words:
            known = [f"--{word}.{'.'.join(path)}" for word in words]
            raise click.NoSuchOption(flag, possibilities=known, ctx=ctx)
        x = text if equals else next(left, None)
        if x is None or not all(path) or len(path) > 2:
            raise click.UsageError(f"{flag} must be --{word}.NAME VALUE or --{word}.NAME.SETTING VALUE", ctx)
        settings = said[word].setdefault(path[0], {})
        key = path[1] if len(path) == 2 else KIND
        if key in settings:
            raise click.UsageError(f"{flag} is given 2 times", ctx)
        settings[key] = value(x)
    return rest, {word: {name: _short(x) for name, x in names.items()} for word, names in said.items()}


def value(text: str) -> Any:
    """A value as JSON writes it; what is no JSON is text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def merged(written: Nested, said: Nested) -> Nested:
    """Settings of a file with those of the command line, which go before; a new kind drops the old one's settings."""
    result = dict(written)
    for name, x in said.items():
        old = written.get(name)
        refined = isinstance(x, Mapping) and KIND not in x
        if refined and old is not None:
            result[name] = {**(old if isinstance(old, Mapping) else {KIND: old}), **x}
        else:
            result[name] = x
    return result


def _short(settings: Nested) -> Any:
    return settings[KIND] if set(settings) == {KIND} else settings


def read_file(file: str) -> Nested:
    """What a JSON or TOML file says.

    Raises:
        ConfigError: another suffix.
        DataError: a file that is damaged, or not one object.
    """
    readers = {".json": json.loads, ".toml": tomllib.loads}
    path = Path(file)
    if path.suffix not in readers:
        raise ConfigError(f"{file}: a configuration ends in {' or '.join(readers)}; got {path.suffix!r}")
    try:
        found = readers[path.suffix](path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{file} holds {type(found).__name__}; expected names and values")
    return found


def _name(param: click.Parameter) -> str:
    return max(param.opts, key=len).removeprefix("--")


def _converted(ctx: click.Context, file: str, key: str, param: click.Parameter, x: Any) -> Any:
    """A value of a file, checked as if it stood on the command line."""
    if isinstance(param, click.Option) and param.is_flag:
        expected, right = "true or false", isinstance(x, bool)
    elif param.nargs != 1:
        expected = "a list of texts" if param.nargs == -1 else f"a list of {param.nargs} texts"
        right = isinstance(x, list) and all(isinstance(one, str) for one in x) and param.nargs in (-1, len(x))
    else:
        expected = "a number" if param.type in (click.INT, click.FLOAT) else "a text"
        right = isinstance(x, str | int | float) and not isinstance(x, bool)
    if not right:
        raise ConfigError(f"{file}: {key}={x!r}; expected {expected}")
    if isinstance(x, bool | list):
        return x
    try:
        return param.type.convert(str(x), param, ctx)
    except click.BadParameter as error:
        raise ConfigError(f"{file}: {key}: {error.message}") from error
