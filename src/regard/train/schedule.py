"""The learning rate by step: a warm-up, then a way down."""

import math
from dataclasses import dataclass, replace
from typing import final

MOST_WARMUP = 4000  # steps, those of the paper
WARMUP_SHARE = 0.05


@final
@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate of each step.

    Args:
        kind: "linear" to 0 at the last step, "cosine" to 0, "paper" by the inverse root of the step, or "constant".
        peak: the highest rate, at the end of the warm-up.
        warmup: steps in which the rate rises in proportion to the step.
        steps: of the whole run.
        fitted: the step, the warm-up's last or a later one, from which the way down is even.
        share: of the way, how much is left there.

    Source: "paper": Vaswani et al. 2017, arXiv 1706.03762, section 5.3, equation 3, where the peak is
    (embed_dim * warmup)^-0.5; "cosine": Loshchilov and Hutter 2016, arXiv 1608.03983, equation 5.

    >>> schedule = Schedule(kind="linear", peak=1.0, warmup=2, steps=6)
    >>> [round(schedule.rate(step), 1) for step in range(1, 7)]
    [0.5, 1.0, 0.8, 0.6, 0.4, 0.2]
    """

    kind: str
    peak: float
    warmup: int
    steps: int
    fitted: int | None = None
    share: float = 1.0

    @staticmethod
    def default_warmup(steps: int) -> int:
        """Steps of warm-up for a run of so many."""
        return max(1, min(MOST_WARMUP, round(WARMUP_SHARE * steps)))

    def rate(self, step: int) -> float:
        """The rate of a step; the first is 1."""
        if step < self.warmup:
            return self.peak * step / self.warmup
        if self.kind == "constant":
            return self.peak
        if self.kind == "paper":
            return self.peak * math.sqrt(max(1, self.warmup) / step)
        left = self._left(step)
        return self.peak * (left if self.kind == "linear" else (1 - math.cos(math.pi * left)) / 2)

    def refit(self, step: int, steps: int) -> "Schedule":
        """The schedule of a run that turns out to have so many steps, the same at this one."""
        if step < self.warmup:
            return replace(self, steps=steps)
        return replace(self, steps=steps, fitted=step, share=self._left(step))

    def _left(self, step: int) -> float:
        """How much of the way down is left, of 1."""
        begin = self.warmup if self.fitted is None else self.fitted
        return self.share * (1 - (step - begin) / max(1, self.steps + 1 - begin))
