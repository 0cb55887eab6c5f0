"""Attention configuration of a model, as plain data in config files and on command lines.

    {"normalizer": {"kind": "entmax", "alpha": 1.5}, "pattern": {"kind": "sliding-window", "left": 8, "right": 8}}

A kind is the class name of a value or a learned setting, in lower case with hyphens. For a value that needs tensors,
its name selects the learned setting: "additive" is LearnedAdditive().
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, final

from regard.attention.bias import Bias
from regard.attention.check import show
from regard.attention.hard import SAMPLES, GradientEstimator, Hard
from regard.attention.normalizer import Entmax, NormalizedSigmoid, Normalizer, Sigmoid, Softmax, Sparsemax
from regard.attention.patterns.block_pattern import RandomBlocks
from regard.attention.patterns.pattern import Causal, Dilated, Full, GlobalTokens, Pattern, SlidingWindow, Strided
from regard.attention.score import Cosine, Dot, Score
from regard.attention.value import Value, short_repr
from regard.errors import ConfigError, nearest
from regard.layers.attention_settings import SETTINGS
from regard.layers.learned import Learned

PLAIN_VALUES: tuple[type[Value], ...] = (
    Dot, Cosine, Softmax, Sparsemax, Entmax, Sigmoid, NormalizedSigmoid, Hard, Full, Causal, SlidingWindow, Dilated,
    Strided, GlobalTokens, RandomBlocks,
)  # fmt: skip
PARTS: dict[str, type[Value]] = {"score": Score, "normalizer": Normalizer, "pattern": Pattern, "position_bias": Bias}


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class AttentionConfig:
    """Changes to the attention of a model, relative to its paper.

    Args:
        score: score function of every attention in the model; None for that of the paper.
        normalizer: normalizer of every attention; None for that of the paper.
        pattern: pattern combined by & with the model's own: in self-attention if the model has it, else in
            cross-attention; None for no change.
        position_bias: bias of self-attention by position; None for that of the paper.

    Raises:
        ConfigError: a value of the wrong kind.

    >>> AttentionConfig.from_plain({"normalizer": {"kind": "entmax", "alpha": 1.5}}).normalizer
    Entmax(alpha=1.5)
    """

    score: Score | Learned | None = None
    normalizer: Normalizer | Learned | None = None
    pattern: Pattern | None = None
    position_bias: Bias | Learned | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        for name, kind in PARTS.items():
            part = getattr(self, name)
            value_type = part.makes if isinstance(part, Learned) and name != "pattern" else type(part)
            if part is not None and not issubclass(value_type, kind):
                raise ConfigError(f"attention.{name}={show(part)} is not a {kind.__name__}; known: {_known(name)}")

    def to_plain(self) -> dict[str, dict[str, Any]]:
        """Convert to plain data.

        Returns:
            JSON-compatible dictionaries by part, without parts that are None.
        """
        return {name: _to_plain(name, part) for name in PARTS if (part := getattr(self, name)) is not None}

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> "AttentionConfig":
        """Make a configuration from plain data.

        Args:
            plain: by part, a kind, or a dictionary with "kind" and the settings of that kind.

        Returns:
            The configuration.

        Raises:
            ConfigError: an unknown part, kind or setting; the message names the nearest known one.
        """
        for name in plain:
            if name not in PARTS:
                raise ConfigError(f"attention has no part {name!r}; {nearest(name, PARTS)}")
        return AttentionConfig(**{name: _from_plain(name, x) for name, x in plain.items() if x is not None})


def kinds(part: str) -> dict[str, type]:
    """Classes of values and learned settings of one part, by their kind in plain data."""
    kind = PARTS[part]
    classes: dict[str, type] = {_hyphens(v.__name__): v for v in PLAIN_VALUES if issubclass(v, kind)}
    for setting in SETTINGS:
        if issubclass(setting.makes, kind):
            classes[_hyphens(setting.__name__)] = setting
            classes.setdefault(_hyphens(setting.makes.__name__), setting)
    return classes


def _known(part: str) -> str:
    return ", ".join(kinds(part))


def _to_plain(part: str, value: Any) -> dict[str, Any]:
    kind = _hyphens(type(value).__name__)
    if kinds(part).get(kind) is not type(value):
        raise ConfigError(f"attention.{part}={show(value)} cannot be written as plain data; known: {_known(part)}")
    settings = {f.name: getattr(value, f.name) for f in fields(value)}
    names = {sample: name for name, sample in SAMPLES.items()}
    plain = {name: names[type(x)] if isinstance(x, GradientEstimator) else x for name, x in settings.items()}
    return {"kind": kind, **{name: x for name, x in plain.items() if x != _default(value, name)}}


def _default(value: Any, name: str) -> Any:
    return next(f.default for f in fields(value) if f.name == name)


def _from_plain(part: str, plain: Any) -> Any:
    settings = {"kind": plain} if isinstance(plain, str) else plain
    if not isinstance(settings, Mapping) or not isinstance(settings.get("kind"), str):
        raise ConfigError(f"attention.{part}={plain!r} must be a kind, or a dictionary with one; known: {_known(part)}")
    known = kinds(part)
    kind = settings["kind"]
    if kind not in known:
        raise ConfigError(f"attention.{part}: unknown kind {kind!r}; {nearest(kind, known)}")
    cls = known[kind]
    names = [f.name for f in fields(cls)]
    arguments = {name: x for name, x in settings.items() if name != "kind"}
    for name in arguments:
        if name not in names:
            raise ConfigError(f"attention.{part}: {kind} has no setting {name!r}; {nearest(name, names)}")
    missing = [f.name for f in fields(cls) if f.default is dataclasses.MISSING and f.name not in arguments]
    if missing:
        raise ConfigError(f"attention.{part}: {kind} needs {', '.join(missing)}; got {arguments}")
    return cls(**{name: tuple(x) if isinstance(x, list) else x for name, x in arguments.items()})


def _hyphens(name: str) -> str:
    """Hyphenate a class name: SlidingWindow is sliding-window, ALiBiSlopes is alibi-slopes."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name.replace("ALiBi", "Alibi")).lower()
