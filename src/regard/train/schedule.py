"""Learning-rate schedules: a linear warm-up, then a decay."""

import math
from dataclasses import dataclass, replace
from typing import final

MAX_WARMUP = 4000  # steps, as in the paper
WARMUP_SHARE = 0.05


@final
@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning-rate schedule of a run.

    Args:
        kind: decay after the warm-up: "linear" or "cosine" to 0 after the last step, "paper" with the inverse square
            root of the step, or "constant".
        peak: maximum learning rate, at the end of the warm-up.
        warmup: number of warm-up steps, in which the rate rises linearly.
        steps: number of steps in the run.
        fitted: step at which `steps` was last changed, at the end of the warm-up or later; None if it was not.
        share: share of the decay that was left at that step.

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
        """Default number of warm-up steps for a run of a number of steps."""
        return max(1, min(MAX_WARMUP, round(WARMUP_SHARE * steps)))

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 1."""
        if step < self.warmup:
            return self.peak * step / self.warmup
        if self.kind == "constant":
            return self.peak
        if self.kind == "paper":
            return self.peak * math.sqrt(max(1, self.warmup) / step)
        left = self._share_left(step)
        return self.peak * (left if self.kind == "linear" else (1 - math.cos(math.pi * left)) / 2)

    def refit(self, step: int, steps: int) -> "Schedule":
        """Schedule with another number of steps, and the same rate at the current step."""
        if step < self.warmup:
            return replace(self, steps=steps)
        return replace(self, steps=steps, fitted=step, share=self._share_left(step))

    def _share_left(self, step: int) -> float:
        """Share of the decay that is left at a step, from 1 to 0."""
        start = self.warmup if self.fitted is None else self.fitted
        return self.share * (1 - (step - start) / max(1, self.steps + 1 - start))
