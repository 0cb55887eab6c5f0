"""How sounds are transcribed."""

from dataclasses import dataclass
from typing import Literal, final

from regard.attention.check import is_number, show
from regard.audio.activity import EnergyGate
from regard.audio.languages import language_code
from regard.decode.search import Beam, Greedy
from regard.errors import ConfigError
from regard.models.whisper import Whisper
from regard.tasks.speech_decoding import Fallback
from regard.tasks.speech_tokens import SpeechTask, SpeechTokens

ENGLISH = "en"
SHORT_SECONDS = 10  # window of short sounds with window="auto"


@final
@dataclass(frozen=True, kw_only=True)
class SpeechSettings:
    """How sounds are transcribed; as published by default.

    Args:
        language: that is spoken, a code such as "it" or an English name; None to detect it.
        language_threshold: probability from which on a detected language is taken; below it the next windows of a long
            sound are read too, and the most probable detection counts.
        to: "en" to translate to English; None for the language that is spoken.
        timestamps: whether the model writes times, so that segments have them; None only for sounds that are longer
            than a window, which always have them.
        words: whether words get times.
        prompt: text that the first window's is taken to continue, such as names to spell.
        hotwords: text that every window's is taken to continue.
        carry: whether each window's text is taken to continue that of the window before.
        search: `Greedy()` or `Beam()`.
        fallback: when a window is decoded again, and dropped.
        window: "full" for the model's, 30 s as published; "auto" for 10 s where the sound is no longer, and 30 s where
            the text of these looks wrong.
        gate: leaves out stretches without sound; None to read everything.

    Raises:
        ConfigError: a value that is unknown or out of range.
    """

    language: str | None = None
    language_threshold: float = 0.5
    to: str | None = None
    timestamps: bool | None = None
    words: bool = False
    prompt: str | None = None
    hotwords: str | None = None
    carry: bool = False
    search: Greedy | Beam = Greedy()
    fallback: Fallback = Fallback()
    window: Literal["full", "auto"] = "full"
    gate: EnergyGate | None = None

    def __post_init__(self) -> None:
        if self.language is not None:
            object.__setattr__(self, "language", language_code(self.language))
        if self.to is not None and language_code(self.to) not in (ENGLISH, self.language):
            raise ConfigError(f"to={self.to!r}; speech models translate to English only: expected 'en' or None")
        if not isinstance(self.search, Greedy | Beam):
            raise ConfigError(f"search={show(self.search)}; expected Greedy() or Beam(): sampling is the fallback's")
        if self.window not in ("full", "auto"):
            raise ConfigError(f"window={self.window!r}; expected 'full' or 'auto'")
        if not is_number(self.language_threshold) or not 0 <= self.language_threshold <= 1:
            raise ConfigError(f"language_threshold={show(self.language_threshold)}; expected a probability, 0 to 1")
        for name, kind in (("fallback", Fallback), ("gate", EnergyGate)):
            if (x := getattr(self, name)) is not None and not isinstance(x, kind):
                raise ConfigError(f"{name}={show(x)}; expected a regard.{kind.__name__}")

    def task(self, language: str | None) -> SpeechTask:
        """What to write for a language."""
        return "translate" if self.to is not None and language_code(self.to) != language else "transcribe"

    def check(self, module: Whisper, special: SpeechTokens) -> None:
        """Raise ConfigError if a model does not support the settings."""
        if special.languages:
            if self.language is not None:
                special.language_token(self.language)
            return
        if self.language not in (None, ENGLISH) or (self.to is not None and language_code(self.to) != ENGLISH):
            raise ConfigError(
                f"language={self.language!r}, to={self.to!r}: the model knows English only; take a multilingual one"
            )
