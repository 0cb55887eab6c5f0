"""What checkpoints say of generation and regard does not do: see `cases.py`."""

from collections.abc import Callable

from regard.checkpoints.generation import wish
from regard.errors import ConfigError, UnsupportedError
from regard.models.published import never_of

CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "wish-repetition",
        lambda: wish({"no_repeat_ngram_size": 3}),
        UnsupportedError,
        "the checkpoint asks for no_repeat_ngram_size=3, which is not supported; expected 0 or None",
    ),
    ("wish-sampling", lambda: wish({"do_sample": True}), UnsupportedError, "asks for do_sample=True"),
    ("wish-stopping", lambda: wish({"early_stopping": "never"}), UnsupportedError, "early_stopping='never'"),
    (
        "wish-task",
        lambda: wish({"task_specific_params": {"summarization": {}}}, "summarize"),
        ConfigError,
        "the checkpoint has no task 'summarize'; did you mean 'summarization'?",
    ),
    ("wish-no-tasks", lambda: wish({}, "translation"), ConfigError, "has no task 'translation'; it names none"),
    (
        "bad-words",
        lambda: never_of("Marian", {"bad_words_ids": [[3, 4]]}),
        UnsupportedError,
        "Marian: bad_words_ids=[[3, 4]] and suppress_tokens=[] are not supported; expected lists of single tokens",
    ),
]
