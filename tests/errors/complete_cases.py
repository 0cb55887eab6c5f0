"""Misuses of completing texts: see `cases.py`."""

import tempfile

import regard as rg
from regard.cli import complete as verb
from regard.cli.shared import open_for
from regard.errors import CheckpointError, ConfigError, DataError, UnsupportedError
from regard.tasks.complete import TextGenerator
from tests.checkpoints.language_models import completer, own_completer
from tests.checkpoints.made import translator
from tests.errors.cases import Case


def verb_of_a_translator() -> None:
    with tempfile.TemporaryDirectory() as folder:
        translator().save(folder)
        nothing = dict.fromkeys(("beam", "greedy", "sample"))
        settings = {
            "file": None,
            "threads": None,
            "device": "cpu",
            "dtype": None,
            "max_new_tokens": 1,
            "stop": (),
            "task": None,
            "batch_size": 1,
            "as_json": False,
        }
        verb.run(("a",), model=folder, **settings, **nothing)


def published(**fields: object) -> TextGenerator:
    """One whose checkpoint says this of generation."""
    made = completer()
    return TextGenerator(made.module, made.tokenizer, {"published": fields})


def verb_without_tokenizer() -> None:
    with tempfile.TemporaryDirectory() as folder:
        TextGenerator(own_completer().module, None).save(folder)
        open_for("complete", folder, None, "cpu").complete(["a"])


CASES: list[Case] = [
    ("complete-text", lambda: completer().complete("a"), DataError, "texts='a' must be a list of texts"),
    (
        "complete-length",
        lambda: completer().complete(["a"], max_new_tokens=0),
        ConfigError,
        "complete: max_new_tokens=0 must be an integer >= 1",
    ),
    (
        "complete-stop",
        lambda: completer().complete(["a"], stop=["a", ""]),
        ConfigError,
        "complete: stop=['a', ''] must be a list of strings, none of them empty",
    ),
    (
        "complete-told",
        lambda: completer().complete(["a"], search=rg.Beam(2), on_text=print),
        ConfigError,
        "on_text with search=Beam(size=2, length_penalty=1.0, n_best=1, early_stopping=False), which",
    ),
    ("complete-long", lambda: completer().complete(["a" * 99]), DataError, "tokens, and the model has 40 positions"),
    (
        "complete-tokenizer",
        lambda: TextGenerator(completer().module, None).complete(["a"]),
        CheckpointError,
        "the model's folder has no tokenizer that regard can read; expected tokenizer.json in",
    ),
    (
        "see-long-text",
        lambda: completer().see("a" * 99),
        DataError,
        "tokens; expected 1 to 40: see one or a few sentences",
    ),
    (
        "complete-no-tokenizer",
        verb_without_tokenizer,
        CheckpointError,
        "the model's folder has no tokenizer that regard can read",
    ),
    (
        "complete-translator",
        verb_of_a_translator,
        UnsupportedError,
        "is a Translator, which cannot complete",
    ),
    (
        "complete-room",
        lambda: published(max_length=3).complete(["abcdef"]),
        DataError,
        "a text has 6 tokens, and the checkpoint says max_length=3, which counts them; say max_new_tokens yourself",
    ),
]
