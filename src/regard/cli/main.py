"""The command `regard`: its verbs, and how it ends when something is wrong.

A verb's module is imported when the verb is called, and torch when it starts to work, so that help and the shell's
completion come at once.
"""

import errno
import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from regard.errors import RegardError, nearest
from regard.tasks.registry import JOBS

# Verbs and their lines in `regard --help`; each is `regard.cli.<verb>.command`. Those of jobs are in their registry.
VERBS = {
    "demo": "See what regard does: translate, look, train a small model.",
    "train": "Train a model on your own records.",
    **{verb: line for job in JOBS.values() for verb, line in job.verbs.items()},
    "evaluate": "Measure a model on records with known answers.",
    "see": "Show what a model attends to.",
    "info": "Explain a run's folder.",
}
EXAMPLES = """\b
Examples:
  regard demo
  regard train pairs.tsv --out runs/en-it
  regard translate "This package contains the documentation." --model runs/en-it
  regard see "This package contains the documentation." --html attention.html
"""
WRONG_USE = 2  # exit codes; 1 is for all else that goes wrong
STOPPED = 130  # as shells say it of a program that Ctrl-C ended
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # how torch says it


class Verbs(click.Group):
    """The verbs, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"regard.cli.{name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in VERBS and not ctx.resilient_parsing:  # as for the shell's completion
            raise click.UsageError(f"unknown verb {args[0]!r}; {nearest(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        result = super().invoke(ctx)
        sys.stdout.flush()  # here a full disk or a closed pipe still can be told, and not after
        return result

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **_: Any) -> NoReturn:  # type: ignore[override]
        """Run a command line and exit: 0, or with one message on standard error."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # as all files are read
        words = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(words or ["--help"], prog_name="regard", standalone_mode=False)
            sys.exit(code if isinstance(code, int) else 0)
        except click.Abort as error:
            _end(STOPPED, str(error.__cause__ or "") or "stopped")
        except click.ClickException as error:
            _end(WRONG_USE, _explained(error))
        except (RegardError, OSError, MemoryError) as error:
            _end(1, _said(error))
        except RuntimeError as error:
            if not any(said in str(error) for said in OUT_OF_MEMORY):
                raise  # a mistake of regard's own, which a traceback helps to find
            _end(1, _said(MemoryError()))


def _end(code: int, message: str) -> NoReturn:
    said = message if code == STOPPED else f"error: {message}"
    click.echo(f"regard: {said}", err=True)
    sys.exit(code)


def _explained(error: click.ClickException) -> str:
    message = error.format_message().strip()
    if isinstance(error, click.NoSuchOption):
        nearest_one = f"; did you mean {error.possibilities[0]}?" if error.possibilities else ""
        message = f"unknown option {error.option_name}{nearest_one}"
    context = getattr(error, "ctx", None)
    return f"{message}{'' if message[-1] in '.?' else '.'} See {context.command_path if context else 'regard'} --help"


def _said(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "out of memory; try a smaller --batch-size or --batch-tokens, or a smaller model"
    if not isinstance(error, OSError) or isinstance(error, RegardError):
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"{where}no space left on the disk; make room and run the same command again"
    return f"{where}{error.strerror or error}"


main = Verbs(
    name="regard",
    help="Train attention models, run them, and see what they attend to.",
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
main = click.version_option(package_name="regard", message="regard %(version)s")(main)
