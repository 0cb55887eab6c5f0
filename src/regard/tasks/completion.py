"""Continuation of prompts by a language model."""

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, final

from regard.attention.check import check_integer, show
from regard.data.text_tokenizer import TextTokenizer
from regard.decode.constraints import Constraints
from regard.decode.generate import generate
from regard.decode.search import Beam, Greedy, Hypothesis, Search
from regard.errors import ConfigError
from regard.models.language_model import LanguageModel
from regard.tasks.check import check_texts

CONTEXT = 4  # tokens of the prompt that new ones are decoded with: a character has four bytes at most
BYTE = re.compile("<0x[0-9A-F]{2}>")  # a token that is a byte, where a vocabulary falls back to them
UNFINISHED = "\ufffd"  # decoded from an incomplete UTF-8 sequence

End = Literal["end", "stop", "length"]


class Continuation(NamedTuple):
    """One continuation of a text."""

    text: str
    score: float  # as the search counts it
    tokens: list[int]
    end: End  # the model's end token, a stop string, or the maximum length


class Completion(NamedTuple):
    """A text and its continuations, best first."""

    prompt: str
    candidates: list[Continuation]

    @property
    def text(self) -> str:
        """The best, without the prompt."""
        return self.candidates[0].text

    def __str__(self) -> str:
        return self.prompt + self.text


def complete(
    module: LanguageModel,
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    *,
    search: Search = Greedy(),
    constraints: Constraints = Constraints(),
    max_new_tokens: int | Callable[[int], int] = 64,
    stop: Sequence[str] = (),
    batch_size: int = 32,
    on_text: Callable[[int, str], None] | None = None,
) -> list[Completion]:
    """Continue texts.

    Args:
        module: the model.
        tokenizer: of the model.
        texts: any texts, empty ones too.
        search: `Greedy`, `Sample` or `Beam`.
        constraints: token constraints; the tokens of the prompt count.
        max_new_tokens: maximum number of new tokens, the end token included; or a function from the prompt's number of
            tokens to that maximum.
        stop: stop strings, before which a text ends. Results of a beam search are cut afterwards.
        batch_size: texts per batch; texts in one batch have equal numbers of tokens.
        on_text: called with the index of a text and each new piece of its continuation; the pieces joined are the
            continuation. Not with beam search.

    Returns:
        A completion for each text, in order.

    Raises:
        DataError: texts that are not a list of strings, or one with more tokens than the model has positions.
        ConfigError: an invalid length, batch size or stop string; on_text with beam search.
    """
    check_texts(texts)
    if not callable(max_new_tokens):
        check_integer("complete", "max_new_tokens", max_new_tokens, 1)
    if isinstance(stop, str) or not all(isinstance(one, str) and one for one in stop):
        raise ConfigError(f"complete: stop={show(stop)} must be a list of strings, none of them empty")
    if on_text is not None and isinstance(search, Beam):
        raise ConfigError(f"complete: on_text with search={search}, which knows no text until the end; leave it out")
    prompts = [prompt or [module.vocabulary.bos] for prompt in prompts_of(tokenizer, texts)]
    writers = [Writer(tokenizer, prompt, stop) for prompt in prompts]

    def on_new_token(number: int, token: int | None) -> bool:
        writer = writers[number]
        if token is not None:
            writer.add(token)
        if on_text is not None and (piece := writer.ready(last=token is None or writer.stopped)):
            on_text(number, piece)
        return writer.stopped

    is_streamed = (on_text is not None or stop) and not isinstance(search, Beam)
    results = generate(
        module,
        prompts,
        search=search,
        constraints=constraints,
        max_length=max_new_tokens,
        batch_size=batch_size,
        on_token=on_new_token if is_streamed else None,
    )
    for number, writer in enumerate(writers if on_text is not None else ()):
        if piece := writer.ready(last=True):  # of one that reached the greatest length
            on_text(number, piece)
    return [
        Completion(text, [continuation(tokenizer, prompt, one, stop) for one in hypotheses])
        for text, prompt, hypotheses in zip(texts, prompts, results, strict=True)
    ]


def prompts_of(tokenizer: TextTokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts, with the special tokens that the model expects before them.

    Args:
        tokenizer: of the model.
        texts: any texts.

    Returns:
        The tokens of each text.
    """
    return [[*tokenizer.before, *ids] for ids in tokenizer.encode_batch(texts)]


@final
class Writer:
    """Incremental decoding of one continuation: the text of its tokens, and the part of it that is final.

    Args:
        tokenizer: of the model.
        prompt: tokens of the prompt, at least one.
        stop: strings before which the text ends.
    """

    def __init__(self, tokenizer: TextTokenizer, prompt: Sequence[int], stop: Sequence[str]) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._tokens = list(prompt[-CONTEXT:])
        self._before = tokenizer.decode(self._tokens)
        self._emitted = 0
        self.text = ""
        self.stopped = False

    def add(self, *tokens: int) -> None:
        """Append tokens."""
        self._tokens += tokens
        self.text = self._decoded(len(self._tokens))
        if offsets := [place for stop in self._stop if (place := self.text.find(stop)) >= 0]:
            self.text, self.stopped = self.text[: min(offsets)], True

    def _decoded(self, end: int) -> str:
        """Text of the tokens before index `end`, without the prompt's."""
        whole: str = self._tokenizer.decode(self._tokens[:end])
        before = self._before if whole.startswith(self._before) else self._before.rstrip(UNFINISHED)
        return whole[len(before) :]

    def ready(self, *, last: bool) -> str:
        """New text since the last call, without a trailing incomplete character or stop string."""
        sure = len(self.text)
        if not last:
            end = len(self._tokens)
            while end and BYTE.fullmatch(self._tokenizer.pieces(self._tokens[end - 1 : end])[0]):
                end -= 1  # bytes are read together: another one may make nonsense of those before it
            written = self.text if end == len(self._tokens) else self._decoded(end)
            sure = min(sure, len(written.rstrip(UNFINISHED)))
            for stop in self._stop:
                matched = (n for n in range(len(stop) - 1, 0, -1) if self.text.endswith(stop[:n]))
                sure = min(sure, len(self.text) - next(matched, 0))
        piece, self._emitted = self.text[self._emitted : sure], max(self._emitted, sure)
        return piece


def continuation(
    tokenizer: TextTokenizer, prompt: Sequence[int], hypothesis: Hypothesis, stop: Sequence[str]
) -> Continuation:
    """A hypothesis as text, cut before the first stop string."""
    writer = Writer(tokenizer, prompt, stop)
    writer.add(*hypothesis.tokens)
    end: End = "stop" if writer.stopped else "end" if hypothesis.finished else "length"
    return Continuation(writer.text, hypothesis.score, hypothesis.tokens, end)
