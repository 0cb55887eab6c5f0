"""Frequency scaling of rotary position embeddings, for contexts longer than in the original training.

A feature pair is rotated by position * frequency. High frequencies, with many rotations within the original length, can
stay unchanged; low frequencies, which never complete a rotation, must not exceed the angles seen in training.
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
    """Base class of the scalings."""

    @abstractmethod
    def scaled(self, frequency: Tensor, base: float) -> Tensor:
        """Scaled frequencies (d / 2,) from the original ones, base^(-2 i / d)."""

    @property
    def amplitude(self) -> float:
        """Factor on the rotated queries and keys."""
        return 1.0

    @final
    def to_plain(self) -> dict[str, Any]:
        """Convert to JSON-compatible data."""
        [kind] = (name for name, cls in kinds().items() if cls is type(self))
        return {"kind": kind, **{field.name: getattr(self, field.name) for field in fields(self)}}

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> "RotaryScaling":
        """Make a scaling from the result of `to_plain`.

        Args:
            plain: "kind", and the fields of that kind.

        Returns:
            The scaling.

        Raises:
            ConfigError: an unknown kind or field, or a missing field or one out of range.
        """
        settings = dict(plain)
        kind = settings.pop("kind", None)
        if kind not in list(kinds()):
            raise ConfigError(f"rotary_scaling: unknown kind {kind!r}; {nearest(str(kind), kinds())}")
        cls = kinds()[kind]
        required = {field.name for field in fields(cls) if field.default is MISSING}
        if not required <= {*settings} <= {field.name for field in fields(cls)}:
            known = ", ".join(field.name for field in fields(cls))
            raise ConfigError(f"rotary_scaling: {kind} has {known}; got {', '.join(settings) or 'nothing'}")
        scaling: RotaryScaling = cls(**settings)
        return scaling

    def __post_init__(self) -> None:
        for field in fields(self):
            x = getattr(self, field.name)
            valid = isinstance(x, bool) if field.type is bool else is_number(x) and 0 < x < math.inf
            if x is not None and not valid:
                expected = "True or False" if field.type is bool else "a positive number"
                raise ConfigError(f"{type(self).__name__}: {field.name}={show(x)} must be {expected}")


@final
@dataclass(frozen=True, kw_only=True)
class LinearScaling(RotaryScaling):
    """Position interpolation: all frequencies divided by a factor.

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
    """Scaling of Llama 3: low frequencies divided by a factor, high ones unchanged, interpolated in between.

    Args:
        factor: divisor of low frequencies.
        low: rotations within the original length up to which a frequency is low.
        high: rotations from which a frequency is high.
        length: original length, in positions.

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
        unscaled = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return frequency / self.factor * (1 - unscaled) + frequency * unscaled


@final
@dataclass(frozen=True, kw_only=True)
class YarnScaling(RotaryScaling):
    """YaRN: low frequencies divided by a factor, high ones unchanged, with a linear ramp over the pair index between.

    Args:
        factor: divisor of low frequencies.
        length: original length, in positions.
        fast: rotations within the original length from which a frequency is high.
        slow: rotations up to which a frequency is low.
        gain: factor on the rotated queries and keys; 0.1 ln(factor) + 1 by default.
        whole: whether the ends of the ramp are rounded to whole pairs.

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
        scaled = ((pair - first) / (last - first)).clamp(0, 1)
        return frequency * (1 - scaled) + frequency / self.factor * scaled


def kinds() -> dict[str, type[RotaryScaling]]:
    """Scaling classes by their kind in plain data."""
    return {"linear": LinearScaling, "llama3": Llama3Scaling, "yarn": YarnScaling}
