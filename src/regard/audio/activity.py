"""Where there is sound: an energy gate over frames of 10 ms."""

from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np

from regard.audio.mel import FRAME_RATE
from regard.errors import ConfigError

QUIETEST: Final = 1e-9  # mean square taken for the least, -90 dB of full scale
FLOOR_QUANTILE: Final = 0.1  # of the frames' energies, taken for the noise
Activity = np.ndarray[Any, np.dtype[np.bool_]]


@final
@dataclass(frozen=True, kw_only=True)
class EnergyGate:
    """Which frames hold sound: those louder than a level below the loudest, and than the noise.

    Args:
        range_db: frames more than this below the loudest are silent.
        margin_db: frames less than this above the noise, the tenth percentile, are silent; the noise counts only where
            it is more than `range_db` / 2 below the loudest.
        floor_db: frames below this level of full scale are silent.
        gap: pauses shorter than this, in seconds, belong to the sound around them.
        pad: seconds kept before and after each sound.

    Raises:
        ConfigError: a value out of range.
    """

    range_db: float = 40.0
    margin_db: float = 6.0
    floor_db: float = -60.0
    gap: float = 0.5
    pad: float = 0.2

    def __post_init__(self) -> None:
        for name in ("range_db", "margin_db", "floor_db", "gap", "pad"):
            x = getattr(self, name)
            number = isinstance(x, int | float) and not isinstance(x, bool)
            if not number or not -200 <= x <= 200 or (name != "floor_db" and x < 0):
                raise ConfigError(f"EnergyGate: {name}={x!r:.50}; expected a number of decibels or seconds")

    def loud(self, energies: Any) -> Activity:
        """Which frames are loud.

        Args:
            energies: (F,), mean squares of frames.

        Returns:
            (F,) booleans.
        """
        level = 10 * np.log10(np.maximum(energies, QUIETEST))
        if not len(level):
            return np.zeros(0, bool)
        peak, noise = level.max(), np.quantile(level, FLOOR_QUANTILE)
        threshold = max(peak - self.range_db, self.floor_db)
        if noise < peak - self.range_db / 2:
            threshold = max(threshold, noise + self.margin_db)
        loud: Activity = level > threshold
        return loud

    def spans(self, energies: Any) -> list[tuple[int, int]]:
        """The stretches of sound.

        Args:
            energies: (F,), mean squares of frames.

        Returns:
            First frame and the one after the last of each, in order; apart by more than `gap`.
        """
        edges = np.flatnonzero(np.diff(np.concatenate([[0], self.loud(energies).astype(np.int8), [0]])))
        gap, pad = round(self.gap * FRAME_RATE), round(self.pad * FRAME_RATE)
        spans: list[tuple[int, int]] = []
        for start, end in edges.reshape(-1, 2).tolist():
            start, end = max(0, start - pad), min(len(energies), end + pad)
            if spans and start - spans[-1][1] < gap:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
        return spans
