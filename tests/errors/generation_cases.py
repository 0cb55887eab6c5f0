"""What checkpoints say of generation and regard does not do: see `cases.py`."""

from collections.abc import Callable

from regard.checkpoints.generation import generation_config
from regard.errors import CheckpointError, ConfigError, UnsupportedError
from regard.models.published import published_vocabulary, suppressed_tokens
from regard.tasks.translate import Translator
from tests.checkpoints.made import tokenizer, transformer


def translate(**fields: object) -> object:
    """Translate with a checkpoint that says this of generation."""
    return Translator(transformer(), tokenizer(), {"published": fields}).translate(["a"])


CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "wish-penalty",
        lambda: generation_config({"encoder_repetition_penalty": 1.2}),
        UnsupportedError,
        "the checkpoint asks for encoder_repetition_penalty=1.2, which is not supported; expected 1.0 or None. Choose",
    ),
    (
        "wish-beam-sampling",
        lambda: generation_config({"do_sample": True, "num_beams": 3}),
        UnsupportedError,
        "asks for do_sample=True, which is not supported; expected False with num_beams=3",
    ),
    (
        "wish-several",
        lambda: generation_config({"num_return_sequences": 2}),
        UnsupportedError,
        "asks for num_return_sequences=2, which is not supported; expected 1 without num_beams",
    ),
    (
        "wish-typical",
        lambda: generation_config({"do_sample": True, "typical_p": 0.9}),
        UnsupportedError,
        "asks for typical_p=0.9",
    ),
    (
        "wish-time",
        lambda: generation_config({"max_time": 3.0}),
        UnsupportedError,
        "max_time=3.0, which is not supported; expected No",
    ),
    (
        "wish-stopping",
        lambda: generation_config({"early_stopping": "always", "num_beams": 2}),
        ConfigError,
        "early_stopping='always'",
    ),
    (
        "wish-flag",
        lambda: generation_config({"do_sample": "yes"}),
        ConfigError,
        "the checkpoint has do_sample='yes'; expected true or false",
    ),
    (
        "wish-list",
        lambda: generation_config({"suppress_tokens": 3}),
        ConfigError,
        "the checkpoint has suppress_tokens=3; expected a list",
    ),
    (
        "wish-count",
        lambda: generation_config({"max_length": 0}),
        ConfigError,
        "the checkpoint has max_length=0; expected a number of tokens above 0",
    ),
    (
        "wish-stop",
        lambda: generation_config({"stop_strings": [""]}),
        ConfigError,
        "the checkpoint has stop_strings=['']; expected a string or a list of strings",
    ),
    (
        "wish-ends",
        lambda: generation_config({"forced_eos_token_id": [3, 4]}),
        UnsupportedError,
        "asks for forced_eos_token_id=[3, 4], which is not supported; expected one token",
    ),
    (
        "wish-task",
        lambda: generation_config({"task_specific_params": {"summarization": {}}}, "summarize"),
        ConfigError,
        "the checkpoint has no task 'summarize'; did you mean 'summarization'?",
    ),
    (
        "wish-task-field",
        lambda: generation_config({"task_specific_params": {"summarization": {"tempo": 3}}}, "summarization"),
        UnsupportedError,
        "the checkpoint's task 'summarization' has the unknown field tempo=3",
    ),
    (
        "wish-no-tasks",
        lambda: generation_config({}, "translation"),
        ConfigError,
        "the checkpoint has no task 'translation'; it has no tasks",
    ),
    (
        "wish-stop-translator",
        lambda: translate(stop_strings="."),
        UnsupportedError,
        "the checkpoint asks for stop_strings=['.'], before which a target shall end",
    ),
    (
        "bad-words",
        lambda: suppressed_tokens("Marian", {"bad_words_ids": [["a"]]}),
        UnsupportedError,
        "Marian: bad_words_ids=[['a']] and suppress_tokens=[] are not supported; expected a list of lists of token",
    ),
    (
        "bad-words-beyond",
        lambda: published_vocabulary("Marian", {"vocab_size": 9, "eos_token_id": 0, "suppress_tokens": [9]}),
        CheckpointError,
        "Marian: bad_words_ids and suppress_tokens have the token id 9; expected ids below vocab_size=9",
    ),
]
