"""How rotary positions turn more slowly, so that a model reads longer texts than those it was first trained on.

A feature pair turns by position * frequency. Each kind here says what becomes of the frequencies, highest first: pairs
that turn often within the first length can stay, those that never complete a turn must not go beyond what they saw.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, final

import torch
from torch import Tensor

from regard.attention.check import is_number, show
from regard.errors import ConfigError, nearest


class RotaryScaling(ABC):
    """What every kind can do."""

    @abstractmethod
    def scaled(self, frequency: Tensor, base: float) -> Tensor:
        """The frequencies (d / 2,) from those of plain rotary positions, base^(-2 i / d)."""

    @property
    def amplitude(self) -> float:
        """What turned queries and keys are multiplied by."""
        return 1.0

    @final
    def to_plain(self) -> dict[str, Any]:
        """The same as JSON's types."""
        [kind] = (name for name, made in kinds().items() if made is type(self))
        return {"kind": kind, **{field.name: getattr(self, field.name) for field in fields(self)}}

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> "RotaryScaling":
        """What `to_plain` gave.

        Args:
            plain: "kind", and the fields of that kind.

        Returns:
            The scaling.

        Raises:
            ConfigError: an unknown kind or field, or a field that is missing or out of range.
        """
        settings = dict(plain)
        kind = settings.pop("kind", None)
        if kind not in list(kinds()):
            raise ConfigError(f"rotary_scaling: unknown kind {kind!r}; {nearest(str(kind), kinds())}")
        made = kinds()[kind]
        needed = {field.name for field in fields(made) if field.default is MISSING}
        if not needed <= {*settings} <= {field.name for field in fields(made)}:
            known = ", ".join(field.name for field in fields(made))
            raise ConfigError(f"rotary_scaling: {kind} has {known}; got {', '.join(settings) or 'nothing'}")
        scaling: RotaryScaling = made(**settings)
        return scaling

    def __post_init__(self) -> None:
        for field in fields(self):
            x = getattr(self, field.name)
            fits = isinstance(x, bool) if field.type is bool else is_number(x) and 0 < x < math.inf
            if x is not None and not fits:
                expected = "True or False" if field.type is bool else "a positive number"
                raise ConfigError(f"{type(self).__name__}: {field.name}={show(x)} must be {expected}")


@final
@dataclass(frozen=True, kw_only=True)
class LinearScaling(RotaryScaling):
    """All frequencies divided by a factor, as if positions stood closer.

    Args:
        factor: > 0.

    Raises:
        ConfigError: a number that is not positive.

    Source: Chen et al. 2023, "Extending Context Window of Large Language Models via Positional Interpolation",
    arXiv 2306.15595, section 2.3.
    """

    factor: float

    def scaled(self, frequency: Tensor, base: float) -> Tensor:
        return frequency / self.factor


@final
@dataclass(frozen=True, kw_only=True)
class Llama3Scaling(RotaryScaling):
    """Low frequencies divided by a factor, high ones as they are, and a mixture of both between.

    Args:
        factor: of the low ones.
        low: turns within the first length up to which a frequency is low.
        high: turns from which it is high.
        length: the first length, in positions.

    Raises:
        ConfigError: a number that is not positive, or a `high` that is not above `low`.

    Source: Grattafiori et al. 2024, "The Llama 3 Herd of Models", arXiv 2407.21783, and the code published with
    Llama 3.1.
    """

    factor: float
    low: float
    high: float
    length: float

    def __post_init__(self) -> None:
        RotaryScaling.__post_init__(self)
        if self.high <= self.low:
            raise ConfigError(f"Llama3Scaling: high={self.high} must be above low={self.low}")

    def scaled(self, frequency: Tensor, base: float) -> Tensor:
        turns = self.length * frequency / (2 * math.pi)
        kept = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return frequency / self.factor * (1 - kept) + frequency * kept


@final
@dataclass(frozen=True, kw_only=True)
class YarnScaling(RotaryScaling):
    """Low frequencies divided by a factor, high ones as they are, between them a ramp by the number of the pair.

    Args:
        factor: of the low ones.
        length: the first length, in positions.
        fast: turns within the first length from which a frequency is high.
        slow: turns up to which it is low.
        gain: what turned queries and keys are multiplied by; 0.1 ln(factor) + 1 by default.
        whole: whether the ramp starts and ends at whole pairs.

    Raises:
        ConfigError: a number that is not positive.

    Source: Peng et al. 2023, "YaRN: Efficient Context Window Extension of Large Language Models", arXiv 2309.00071,
    section 3.2 and equation 15.
    """

    factor: float
    length: float
    fast: float = 32.0
    slow: float = 1.0
    gain: float | None = None
    whole: bool = True

    @property
    def amplitude(self) -> float:
        if self.gain is not None:
            return self.gain
        return 0.1 * math.log(self.factor) + 1 if self.factor > 1 else 1.0

    def scaled(self, frequency: Tensor, base: float) -> Tensor:
        pairs = len(frequency)
        first, last = (
            pairs * math.log(self.length / (2 * math.pi * n)) / math.log(base) for n in (self.fast, self.slow)
        )
        if self.whole:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, 2 * pairs - 1)
        last = last if last != first else first + 0.001
        pair = torch.arange(pairs, dtype=frequency.dtype, device=frequency.device)
        slowed = ((pair - first) / (last - first)).clamp(0, 1)
        return frequency * (1 - slowed) + frequency / self.factor * slowed


def kinds() -> dict[str, type[RotaryScaling]]:
    """The kinds by the names that plain data has for them."""
    return {"linear": LinearScaling, "llama3": Llama3Scaling, "yarn": YarnScaling}
