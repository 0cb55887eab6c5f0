"""The command `regard`: its verbs, its exit codes and its error messages.

A verb's module is imported when the verb is called, and torch when the verb starts to work, so that help and shell
completion are fast.
"""

import errno
import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from regard.cli.output import print_error
from regard.errors import RegardError, nearest
from regard.tasks.registry import JOBS

# Verbs and their lines in `regard --help`; each is `regard.cli.<verb>.command`. Those of jobs come from the registry.
VERBS = {
    "demo": "Translate with the shipped model, train a small one, look inside both.",
    "train": "Train a model on your own data.",
    **{verb: line for job in JOBS.values() for verb, line in job.verbs.items()},
    "evaluate": "Measure a model on records with reference answers.",
    "lens": "Study what a model attends to, over many records.",
    "see": "Show what a model attends to.",
    "quantize": "Save a model with int8 weights, smaller and faster.",
    "info": "Describe the folder of a run or of a published checkpoint.",
}
EXAMPLES = """\b
Examples:
  regard demo
  regard train pairs.tsv --out runs/en-it
  regard translate "This package contains the documentation." --model runs/en-it
  regard see "This package contains the documentation." --html attention.html
"""
USAGE_ERROR, OTHER_ERROR = 2, 1  # exit codes
INTERRUPTED = 130  # exit code that shells give a program that Ctrl-C ended
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # in messages of torch


class Verbs(click.Group):
    """Group of the verbs, each imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"regard.cli.{name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in VERBS and not ctx.resilient_parsing:  # which shell completion is
            raise click.UsageError(f"unknown verb {args[0]!r}; {nearest(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        result = super().invoke(ctx)
        sys.stdout.flush()  # a full disk or a closed pipe can still be reported here
        return result

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **_: Any) -> NoReturn:  # type: ignore[override]
        """Run a command line and exit, with code 0 or with one message on standard error."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # the encoding of all files
        words = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(words or ["--help"], prog_name="regard", standalone_mode=False)
        except click.Abort as error:
            click.echo(f"regard: {str(error.__cause__ or '') or 'stopped'}", err=True)
            code = INTERRUPTED
        except click.ClickException as error:
            code = _failed(USAGE_ERROR, _usage_message(error))
        except (RegardError, OSError, MemoryError) as error:
            code = _failed(OTHER_ERROR, _message(error))
        except RuntimeError as error:
            if not any(text in str(error) for text in OUT_OF_MEMORY):
                raise  # a bug of regard, which a traceback helps to find
            code = _failed(OTHER_ERROR, _message(MemoryError()))
        sys.exit(code if isinstance(code, int) else 0)


def _failed(code: int, message: str) -> int:
    print_error(message)
    return code


def _usage_message(error: click.ClickException) -> str:
    message = error.format_message().strip()
    if isinstance(error, click.NoSuchOption):
        suggestion = f"; did you mean {error.possibilities[0]}?" if error.possibilities else ""
        message = f"unknown option {error.option_name}{suggestion}"
    context = getattr(error, "ctx", None)
    return f"{message}{'' if message[-1] in '.?' else '.'} See {context.command_path if context else 'regard'} --help"


def _message(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "out of memory; try a smaller --batch-size or --batch-tokens, or a smaller model"
    if not isinstance(error, OSError) or isinstance(error, RegardError):
        return str(error)
    file = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"{file}no space left on the disk; free some space and run the same command again"
    return f"{file}{error.strerror or error}"


main = Verbs(
    name="regard",
    help="Train and run attention models, and see what they attend to.",
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
main = click.version_option(package_name="regard", message="regard %(version)s")(main)
