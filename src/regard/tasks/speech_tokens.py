"""The special tokens of a speech model: languages, tasks and times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from regard.attention.check import is_integer, show
from regard.audio.languages import LANGUAGES
from regard.errors import CheckpointError, ConfigError
from regard.models.whisper import Whisper

START, PREVIOUS, NO_TIMES = "<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>"
NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")
MULTILINGUAL = 51_865  # tokens of the smallest multilingual vocabulary
TIME_STEP = 0.02  # seconds from one time token to the next
SpeechTask = Literal["transcribe", "translate"]


@final
@dataclass(frozen=True, kw_only=True)
class SpeechTokens:
    """Ids of the special tokens of a speech model.

    Args:
        start: that a text starts with.
        end: end token.
        previous: that stands before the text of what was said before; None if there is none.
        no_speech: whose probability at the start is that nothing is said; None if there is none.
        no_times: that stands before a text without times.
        first_time: the token of 0 s; each further token is 0.02 s later.
        languages: token of each language, by code; empty for a model of one language.
        tasks: tokens of "transcribe" and "translate"; empty for a model of one task.
        suppressed: never generated.
        suppressed_first: not generated as the first token.
        max_initial: latest time of the first segment, in steps.
    """

    start: int
    end: int
    previous: int | None
    no_speech: int | None
    no_times: int
    first_time: int
    languages: Mapping[str, int]
    tasks: Mapping[str, int]
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()
    max_initial: int | None = 50

    def prompt(self, *, language: str | None, task: SpeechTask, times: bool, before: Sequence[int] = ()) -> list[int]:
        """The tokens that a text starts with.

        Args:
            language: code of the language that is spoken; None in a model of one language.
            task: to transcribe, or to translate to English.
            times: whether the text has time tokens.
            before: tokens of what was said before, or of words to expect.

        Returns:
            Token ids.
        """
        tokens = [self.previous, *before] if before and self.previous is not None else []
        tokens.append(self.start)
        if self.languages and language is not None:
            tokens += [self.languages[language], self.tasks[task]]
        return [*tokens, *([] if times else [self.no_times])]

    def language_token(self, code: str) -> int:
        """The token of a language; ConfigError if the model does not know it."""
        if code not in self.languages:
            raise ConfigError(f"the model does not know the language {code!r}; it knows {', '.join(self.languages)}")
        return self.languages[code]

    @staticmethod
    def of(module: Whisper, tokenizer: Any, fields: Mapping[str, Any]) -> "SpeechTokens":
        """The special tokens of a model.

        Args:
            module: the model.
            tokenizer: its tokenizer.
            fields: of its generation_config.json, if it has one.

        Returns:
            The tokens.

        Raises:
            CheckpointError: a vocabulary without the tokens that a speech model needs, or fields of a wrong kind.
        """
        vocabulary = module.vocabulary

        def token(*names: str) -> int | None:
            ids = (tokenizer.id_of(name) for name in names)
            return next((i for i in ids if i is not None and i < vocabulary.size), None)

        no_times = fields.get("no_timestamps_token_id")
        no_times = token(NO_TIMES) if no_times is None else no_times
        if not is_integer(no_times) or not 0 <= no_times < vocabulary.size - 1:
            raise CheckpointError(
                f"the vocabulary has no token {NO_TIMES} (id {show(no_times)}) with those of times after it; expected "
                "one of Whisper's vocabularies"
            )
        multilingual = fields.get("is_multilingual")
        if multilingual is None:
            multilingual = vocabulary.size >= MULTILINGUAL
        languages, tasks = {}, {}
        if multilingual:
            by_code = {code: token(f"<|{code}|>") for code in LANGUAGES}
            languages = {code: i for code, i in by_code.items() if i is not None}
            tasks = {name: i for name in ("transcribe", "translate") if (i := token(f"<|{name}|>")) is not None}
            if not languages or len(tasks) < 2:
                raise CheckpointError(
                    "the model is multilingual, and its vocabulary has no tokens of languages, <|transcribe|> and "
                    "<|translate|>; expected one of Whisper's vocabularies"
                )
        return SpeechTokens(
            start=vocabulary.bos,
            end=vocabulary.eos,
            previous=token(PREVIOUS),
            no_speech=token(*NO_SPEECH),
            no_times=int(no_times),
            first_time=int(no_times) + 1,
            languages=languages,
            tasks=tasks,
            suppressed=_suppressed(module, tokenizer, fields, int(no_times)),
            suppressed_first=_ids(module, fields, "begin_suppress_tokens"),
            max_initial=fields.get("max_initial_timestamp_index", 50),
        )


def alignment_heads(module: Whisper, fields: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """Layers and heads of cross-attention that word times come from; those of the decoder's later half by default.

    Args:
        module: the model.
        fields: of its generation_config.json.

    Returns:
        Pairs of a layer and a head.

    Raises:
        CheckpointError: heads that the model does not have.
    """
    config = module.config
    layers, heads = config.decoder_layers, config.num_heads
    pairs = fields.get("alignment_heads")
    if pairs is None:
        return tuple((layer, head) for layer in range(layers // 2, layers) for head in range(heads))
    valid = isinstance(pairs, list) and pairs and all(isinstance(x, list) and len(x) == 2 for x in pairs)
    if not valid or not all(
        is_integer(layer) and is_integer(head) and 0 <= layer < layers and 0 <= head < heads for layer, head in pairs
    ):
        raise CheckpointError(
            f"alignment_heads={show(pairs)}; expected pairs of a layer below {layers} and a head below {heads}"
        )
    return tuple((layer, head) for layer, head in pairs)


def _suppressed(module: Whisper, tokenizer: Any, fields: Mapping[str, Any], no_times: int) -> tuple[int, ...]:
    """Tokens that are never generated: those of the checkpoint, and the marks between the texts and the times."""
    marks = range(module.vocabulary.eos + 1, no_times + 1)
    return tuple(sorted({*_ids(module, fields, "suppress_tokens"), *marks}))


def _ids(module: Whisper, fields: Mapping[str, Any], name: str) -> tuple[int, ...]:
    tokens = fields.get(name) or []
    size = module.vocabulary.size
    if not isinstance(tokens, list) or not all(is_integer(x) and x < size for x in tokens):
        raise CheckpointError(f"{name}={show(tokens)}; expected token ids below {size}")
    return tuple(x for x in tokens if x >= 0)
