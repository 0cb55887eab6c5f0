"""Base of all verbs: help under headings with examples, and options that may not be repeated."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, final

import click
from click.shell_completion import CompletionItem

OPTIONS = "Options"


class Option(click.Option):
    """Option that the help lists under a heading."""

    def __init__(self, *args: Any, heading: str = OPTIONS, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.heading = heading


class Argument(click.Argument):
    """Argument with a line of help."""

    def __init__(self, name: str, *, about: str, **settings: Any) -> None:
        super().__init__([name], **settings)
        self.about = about


class Count(click.ParamType[int]):
    """Type of an integer from 1 to `maximum`."""

    name = "N"

    def __init__(self, maximum: int = 10**9) -> None:
        self.maximum = maximum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            count = int(value)
        except ValueError:
            count = 0
        if not 1 <= count <= self.maximum:
            self.fail(f"{value!r} is not a whole number from 1 to {self.maximum:,}", param, ctx)
        return count


@final
class PathName(click.ParamType[str]):
    """Type of a file or folder name, which the shell completes."""

    name = "path"

    def __init__(self, kind: Literal["file", "dir"]) -> None:
        self.kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type=self.kind)]


FILE, FOLDER = PathName("file"), PathName("dir")


@final
class Suggested(click.ParamType[str]):
    """Type of a text with suggestions for shell completion; the code that uses the text validates it."""

    name = "text"

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(text) for text in self.texts if text.startswith(incomplete)]


class Command(click.Command):
    """A verb. Options that are no lists may be given only once.

    Args:
        name: the verb.
        run: function of the arguments and options by name; its docstring is the help.
        params: arguments and options.
        examples: command lines at the end of the help.
    """

    def __init__(
        self, name: str, run: Callable[..., Any], *, params: Sequence[click.Parameter], examples: Sequence[str]
    ) -> None:
        lines = ["\b", "Example:" if len(examples) == 1 else "Examples:", *(f"  {line}" for line in examples)]
        super().__init__(name, callback=run, params=list(params), help=run.__doc__, epilog="\n".join(lines))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # shell completion, of a line that is not finished
            self.values_of(ctx, args)
        return super().parse_args(ctx, args)

    def values_of(self, ctx: click.Context, args: Sequence[str]) -> dict[str, Any]:
        """Values of a command line as texts by parameter; UsageError for an option that is repeated."""
        values, _, params = self.make_parser(ctx).parse_args(list(args))
        for param in params:
            if isinstance(param, click.Option) and not param.multiple and params.count(param) > 1:
                raise click.UsageError(
                    f"{max(param.opts, key=len)} is given {params.count(param)} times; give it once", ctx
                )
        return values

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if isinstance(param, Argument):
                headings.setdefault("Arguments", []).append((param.make_metavar(ctx), param.about))
            elif (record := param.get_help_record(ctx)) is not None:
                headings.setdefault(getattr(param, "heading", OPTIONS), []).append(record)
        headings[OPTIONS] = headings.pop(OPTIONS)  # last, with --help
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records)
