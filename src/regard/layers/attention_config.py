"""The values of a model's attention as plain data, as config files and command lines write them.

    {"normalizer": {"kind": "entmax", "alpha": 1.5}, "pattern": {"kind": "sliding-window", "left": 8, "right": 8}}

A kind is the name of a value, or of a learned setting, in lower case with hyphens. A value that needs tensors is
reached by the setting that learns them: "additive" means LearnedAdditive().
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, final

from regard.attention.bias import Bias
from regard.attention.check import show
from regard.attention.normalizer import Entmax, Normalizer, Sigmoid, Softmax, Sparsemax
from regard.attention.patterns.block_pattern import RandomBlocks
from regard.attention.patterns.pattern import Causal, Dilated, Full, GlobalTokens, Pattern, SlidingWindow, Strided
from regard.attention.score import Cosine, Dot, Score
from regard.attention.value import Value, short_repr
from regard.errors import ConfigError, nearest
from regard.layers.attention_settings import SETTINGS
from regard.layers.learned import Learned

PLAIN_VALUES: tuple[type[Value], ...] = (
    Dot, Cosine, Softmax, Sparsemax, Entmax, Sigmoid, Full, Causal, SlidingWindow, Dilated, Strided, GlobalTokens,
    RandomBlocks,
)  # fmt: skip
PARTS: dict[str, type[Value]] = {"score": Score, "normalizer": Normalizer, "pattern": Pattern, "position_bias": Bias}


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class AttentionConfig:
    """What a model's attention is made of where it differs from the model's paper.

    Args:
        score: how well a key answers a query, in every attention of the model; None for the paper's.
        normalizer: what turns scores into weights, in every attention; None for the paper's.
        pattern: which keys a query may attend to, besides what the model needs: in self-attention where the model has
            it, else in cross-attention; None for no further bound.
        position_bias: what is added to the scores of self-attention by position; None for the paper's.

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
            makes = part.makes if isinstance(part, Learned) and name != "pattern" else type(part)
            if part is not None and not issubclass(makes, kind):
                raise ConfigError(f"attention.{name}={show(part)} is not a {kind.__name__}; known: {_known(name)}")

    def to_plain(self) -> dict[str, dict[str, Any]]:
        """The same as plain data.

        Returns:
            Dictionaries of JSON's types, by part; parts that are None are left out.
        """
        return {name: _to_plain(name, part) for name in PARTS if (part := getattr(self, name)) is not None}

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> "AttentionConfig":
        """The values that plain data says.

        Args:
            plain: a kind, or a dictionary with "kind" and that kind's settings, by part.

        Returns:
            The configuration.

        Raises:
            ConfigError: an unknown part, kind or setting, named beside the nearest known one.
        """
        for name in plain:
            if name not in PARTS:
                raise ConfigError(f"attention has no part {name!r}; {nearest(name, PARTS)}")
        return AttentionConfig(**{name: _from_plain(name, x) for name, x in plain.items() if x is not None})


def kinds(part: str) -> dict[str, type]:
    """The values and learned settings that plain data can name, for one part."""
    kind = PARTS[part]
    found: dict[str, type] = {_hyphens(v.__name__): v for v in PLAIN_VALUES if issubclass(v, kind)}
    for setting in SETTINGS:
        if issubclass(setting.makes, kind):
            found[_hyphens(setting.__name__)] = setting
            found.setdefault(_hyphens(setting.makes.__name__), setting)
    return found


def _known(part: str) -> str:
    return ", ".join(kinds(part))


def _to_plain(part: str, made: Any) -> dict[str, Any]:
    kind = _hyphens(type(made).__name__)
    if kinds(part).get(kind) is not type(made):
        raise ConfigError(f"attention.{part}={show(made)} cannot be written as plain data; known: {_known(part)}")
    changed = {f.name: getattr(made, f.name) for f in fields(made)}
    return {"kind": kind, **{name: x for name, x in changed.items() if x != _default(made, name)}}


def _default(made: Any, name: str) -> Any:
    return next(f.default for f in fields(made) if f.name == name)


def _from_plain(part: str, plain: Any) -> Any:
    settings = {"kind": plain} if isinstance(plain, str) else plain
    if not isinstance(settings, Mapping) or not isinstance(settings.get("kind"), str):
        raise ConfigError(f"attention.{part}={plain!r} must be a kind, or a dictionary with one; known: {_known(part)}")
    known = kinds(part)
    kind = settings["kind"]
    if kind not in known:
        raise ConfigError(f"attention.{part}: unknown kind {kind!r}; {nearest(kind, known)}")
    made = known[kind]
    names = [f.name for f in fields(made)]
    given = {name: x for name, x in settings.items() if name != "kind"}
    for name in given:
        if name not in names:
            raise ConfigError(f"attention.{part}: {kind} has no setting {name!r}; {nearest(name, names)}")
    missing = [f.name for f in fields(made) if f.default is dataclasses.MISSING and f.name not in given]
    if missing:
        raise ConfigError(f"attention.{part}: {kind} needs {', '.join(missing)}; got {given}")
    return made(**{name: tuple(x) if isinstance(x, list) else x for name, x in given.items()})


def _hyphens(name: str) -> str:
    """sliding-window of SlidingWindow, alibi-slopes of ALiBiSlopes."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name.replace("ALiBi", "Alibi")).lower()
