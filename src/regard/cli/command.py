"""What all verbs share: help under headings with examples, and each option once."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, final

import click
from click.shell_completion import CompletionItem

OPTIONS = "Options"


class Option(click.Option):
    """An option that stands in the help under a heading."""

    def __init__(self, *args: Any, heading: str = OPTIONS, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.heading = heading


class Argument(click.Argument):
    """An argument with a line of help."""

    def __init__(self, name: str, *, about: str, **settings: Any) -> None:
        super().__init__([name], **settings)
        self.about = about


class Count(click.ParamType[int]):
    """A whole number above 0, and not above `most`."""

    name = "N"

    def __init__(self, most: int = 10**9) -> None:
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            count = int(value)
        except ValueError:
            count = 0
        if not 1 <= count <= self.most:
            self.fail(f"{value!r} is not a whole number from 1 to {self.most:,}", param, ctx)
        return count


@final
class PathName(click.ParamType[str]):
    """The name of a file or of a folder, which the shell completes."""

    name = "path"

    def __init__(self, kind: Literal["file", "dir"]) -> None:
        self.kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type=self.kind)]


FILE, FOLDER = PathName("file"), PathName("dir")


@final
class Suggested(click.ParamType[str]):
    """A text for which the shell suggests some; what it may be is checked where it is used."""

    name = "text"

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(text) for text in self.texts if text.startswith(incomplete)]


class Command(click.Command):
    """A verb, each option of which is given once at most, but for those that are lists.

    Args:
        name: the verb.
        run: what it does, given its arguments and options by name; its docstring is the help.
        params: arguments and options.
        examples: command lines that end the help.
    """

    def __init__(
        self, name: str, run: Callable[..., Any], *, params: Sequence[click.Parameter], examples: Sequence[str]
    ) -> None:
        lines = ["\b", "Example:" if len(examples) == 1 else "Examples:", *(f"  {line}" for line in examples)]
        super().__init__(name, callback=run, params=list(params), help=run.__doc__, epilog="\n".join(lines))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # as for the shell's completion, of a line that is not finished
            self.given(ctx, args)
        return super().parse_args(ctx, args)

    def given(self, ctx: click.Context, args: Sequence[str]) -> dict[str, Any]:
        """What a command line says, as texts by parameter; UsageError where it says something twice."""
        values, _, params = self.make_parser(ctx).parse_args(list(args))
        for param in params:
            if isinstance(param, click.Option) and not param.multiple and params.count(param) > 1:
                raise click.UsageError(f"{max(param.opts, key=len)} is given {params.count(param)} times", ctx)
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
