"""Decoding of windows of sound: search, and sampling at rising temperatures where the text looks wrong.

Source: Radford et al. 2022, arXiv 2212.04356, section 4.5.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from regard.attention.check import is_number, show
from regard.decode.beam import beam_search
from regard.decode.constraints import Constraints, ConstraintState
from regard.decode.sampling import Sampler, source_keys
from regard.decode.search import Beam, Greedy, Hypothesis, Sample
from regard.decode.stepwise import decode_stepwise
from regard.decode.timestamps import TimestampRule
from regard.decode.top import topk_log_probs
from regard.errors import ConfigError
from regard.models.seq2seq import Memory, Vocabulary
from regard.models.whisper import Whisper
from regard.tasks.speech_tokens import SpeechTask, SpeechTokens
from regard.tasks.transcript import Candidate

LOOP, PERIOD = 64, 8  # tokens at the end of a text that repeat the same few, so many at most
SEED = 0  # of the samples, which depend on the sound beside


@final
@dataclass(frozen=True, kw_only=True)
class Fallback:
    """When a window is decoded again, at the next temperature; as published by default.

    Args:
        temperatures: in order; 0 for the search itself.
        compression_ratio: of a text above which it is taken to repeat itself; None for no bound.
        log_prob: mean log-probability of the tokens below which a text is taken to be wrong; None for no bound.
        no_speech: probability that nothing is said above which a text that is improbable besides is dropped; None to
            keep all texts.

    Raises:
        ConfigError: a value out of range.
    """

    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    compression_ratio: float | None = 2.4
    log_prob: float | None = -1.0
    no_speech: float | None = 0.6

    def __post_init__(self) -> None:
        steps = self.temperatures
        if not isinstance(steps, tuple) or not steps or not all(is_number(x) and 0 <= x <= 10 for x in steps):
            raise ConfigError(
                f"temperatures={show(steps)}; expected a tuple of numbers from 0 to 10, such as (0.0, 0.4)"
            )
        for name in ("compression_ratio", "log_prob", "no_speech"):
            if (x := getattr(self, name)) is not None and not is_number(x):
                raise ConfigError(f"{name}={show(x)}; expected a number, or None for no bound")

    def is_silent(self, decoding: "Decoding") -> bool:
        """Whether a window counts as silent."""
        if self.no_speech is None or decoding.no_speech <= self.no_speech:
            return False
        return self.log_prob is None or decoding.log_prob < self.log_prob

    def is_doubtful(self, decoding: "Decoding") -> bool:
        """Whether a window's text looks wrong."""
        if self.is_silent(decoding):
            return False
        repeats = self.compression_ratio is not None and decoding.compression_ratio > self.compression_ratio
        return repeats or (self.log_prob is not None and decoding.log_prob < self.log_prob)


class Decoding(NamedTuple):
    """The text of a window."""

    tokens: list[int]  # without the prompt and the end token
    text: str
    log_prob: float  # mean over the tokens, the end token included
    no_speech: float
    temperature: float
    candidates: tuple[Candidate, ...]

    @property
    def compression_ratio(self) -> float:
        """Bytes of the text over bytes of the compressed text."""
        return compression_ratio(self.text)


class Language(NamedTuple):
    """A language and its probability; None where it was not detected."""

    code: str | None
    probability: float | None


@final
class Loops:
    """Stopping criterion for texts that repeat the same tokens.

    Args:
        count: number of texts.
    """

    def __init__(self, count: int) -> None:
        self._tokens: list[list[int]] = [[] for _ in range(count)]

    def __call__(self, sentences: Tensor, tokens: Tensor) -> Tensor:
        """Append a token to each text; whether each text now ends in a long repetition.

        Args:
            sentences: indices of the texts, (B,).
            tokens: next token of each text, (B,).

        Returns:
            (B,) booleans.
        """
        stops = []
        for sentence, token in zip(sentences.tolist(), tokens.tolist(), strict=True):
            written = self._tokens[sentence]
            written.append(token)
            tail = written[-LOOP:]
            stops.append(len(tail) == LOOP and any(tail[n:] == tail[:-n] for n in range(1, PERIOD + 1)))
        return torch.tensor(stops, device=tokens.device)


@final
class WindowDecoder:
    """Decodes windows of sound, many at once; the text of a window does not depend on the others.

    Args:
        module: in evaluation mode.
        tokenizer: of the model.
        tokens: special tokens.
        search: of temperature 0.
        fallback: when to sample.
    """

    def __init__(
        self, module: Whisper, tokenizer: Any, tokens: SpeechTokens, search: Greedy | Beam, fallback: Fallback
    ) -> None:
        self.module, self.tokenizer, self.tokens = module, tokenizer, tokens
        self.search, self.fallback = search, fallback
        self._constraints = Constraints(
            suppress_tokens=tokens.suppressed,
            begin_suppress_tokens=tokens.suppressed_first,
            renormalize=isinstance(search, Greedy),
        )

    def detect(self, memory: Memory) -> list[Language]:
        """The language that is spoken in each window.

        Args:
            memory: the encoder's output.

        Returns:
            The most probable language, and its probability among all.
        """
        if not self.tokens.languages:
            return [Language(None, None)] * len(memory.states)
        codes = list(self.tokens.languages)
        state = self.module.start(memory)
        logits = self.module.step(self._column(memory, self.tokens.start), state)[:, 0]
        probabilities = logits[:, list(self.tokens.languages.values())].float().softmax(1)
        values, best = probabilities.max(1)
        return [Language(codes[i], p) for i, p in zip(best.tolist(), values.tolist(), strict=True)]

    def decode(
        self,
        inputs: Tensor,
        memory: Memory,
        languages: Sequence[str | None],
        *,
        task: SpeechTask,
        times: bool,
        before: Sequence[Sequence[int]],
        final: bool = True,
    ) -> list[Decoding]:
        """The texts of windows.

        Args:
            inputs: spectrograms (B, F, M).
            memory: the encoder's output for them.
            languages: of each window; None in a model of one language.
            task: what to write.
            times: whether the text has time tokens.
            before: tokens that stand before each window's, equally many.
            final: whether doubtful windows are decoded again here.

        Returns:
            A `Decoding` for each window.
        """
        prompts = [
            self.tokens.prompt(language=language, task=task, times=times, before=tokens)
            for language, tokens in zip(languages, before, strict=True)
        ]
        results: dict[int, Decoding] = {}
        rows = list(range(len(prompts)))
        steps = self.fallback.temperatures[: None if final else 1]
        for temperature in steps:
            chosen, last = torch.tensor(rows), final and temperature == steps[-1]
            part = memory if len(rows) == len(prompts) else memory.keep(chosen.to(memory.states.device))
            keys = torch.cat([_key(inputs[row], temperature) for row in rows]) if temperature else torch.empty(0, 2)
            decoded = self._once(part, [prompts[row] for row in rows], temperature, keys, times=times, last=last)
            results.update(zip(rows, decoded, strict=True))
            rows = [row for row in rows if self.fallback.is_doubtful(results[row])]
            if not rows:
                break
        return [results[row] for row in range(len(prompts))]

    def _once(
        self,
        memory: Memory,
        prompts: list[list[int]],
        temperature: float,
        keys: Tensor,
        *,
        times: bool,
        last: bool,
    ) -> list[Decoding]:
        """The texts at one temperature; where it is not the last one, a text that repeats itself is cut off."""
        module, tokens, device = self.module, self.tokens, memory.states.device
        prompt = torch.tensor(prompts, device=device)
        start = prompts[0].index(tokens.start)
        state = module.start(memory)
        if start:
            module.extend(prompt[:, :start], state)
        logits = module.step(prompt[:, start : start + 1], state)[:, 0].float()
        silent = torch.zeros(len(prompts)) if tokens.no_speech is None else logits.softmax(1)[:, tokens.no_speech]
        if start + 1 == prompt.shape[1]:  # nothing follows the start token: it is fed by the search again
            state.rewind()
            if start:
                module.extend(prompt[:, :-1], state)
        elif start + 2 < prompt.shape[1]:
            module.extend(prompt[:, start + 1 : -1], state)
        limits = torch.full((len(prompts),), module.config.max_length - prompt.shape[1], device=device)
        rule = TimestampRule(first=tokens.first_time, eos=tokens.end, max_initial=tokens.max_initial)
        constraints = self._constraints if not temperature else replace(self._constraints, renormalize=True)
        rules = ConstraintState(constraints, module.vocabulary, prompt, limits, rule if times else None)
        if not temperature and isinstance(self.search, Beam):
            hypotheses = beam_search(module, state, prompt[:, -1], limits, self.search, rules)
        else:
            choose = Sampler(Sample(temperature=temperature), torch.tensor(SEED), keys) if temperature else _choose
            loops = None if last or self.fallback.compression_ratio is None else Loops(len(prompts))
            hypotheses = decode_stepwise(module, state, prompt[:, -1], limits, choose, rules, loops)
        return [self._decoding(*row, temperature) for row in zip(hypotheses, silent.tolist(), strict=True)]

    def _decoding(self, hypotheses: list[Hypothesis], silent: float, temperature: float) -> Decoding:
        best, candidates = hypotheses[0], ()
        if len(hypotheses) > 1:
            candidates = tuple(Candidate(self.text(one.tokens).strip(), one.score) for one in hypotheses)
        return Decoding(best.tokens, self.text(best.tokens), best.score, silent, temperature, candidates)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without times."""
        text: str = self.tokenizer.decode([token for token in tokens if token < self.tokens.first_time])
        return text

    def _column(self, memory: Memory, token: int) -> Tensor:
        return torch.full((len(memory.states), 1), token, device=memory.states.device)


def compression_ratio(text: str) -> float:
    """Bytes of a text over bytes of the compressed text."""
    data = text.strip().encode()
    return len(data) / len(zlib.compress(data))


def _choose(logits: Tensor, vocabulary: Vocabulary, step: int, sentences: Tensor) -> tuple[Tensor, Tensor]:
    """The most probable token of each window, from logits that are -inf where a token is not allowed."""
    values, tokens = topk_log_probs(logits, replace(vocabulary, never=()), 1)
    return tokens[:, 0], values[:, 0]


def _key(inputs: Tensor, temperature: float) -> Tensor:
    """The key of a window's random stream, which depends on its sound and on the temperature alone."""
    digest = hashlib.blake2b(inputs.cpu().numpy().tobytes(), digest_size=8).digest()
    return source_keys([[int.from_bytes(digest, "little"), round(temperature * 1000)]])
