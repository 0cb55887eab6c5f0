"""Rules of texts with time tokens, as Whisper's models write them."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class TimestampRule:
    """Which tokens may follow in a text of segments, each between two time tokens.

    A text starts with a time; times come in pairs, the end of a segment and the start of the next, or one before the
    end of the text; they never fall, and a segment does not end where it started. Where all times together are more
    probable than any other token, a time follows.

    Args:
        first: the token of 0 s; all tokens from it on are times, each a step later.
        eos: end token; tokens below it are text.
        max_initial: latest first time, in steps; None for any.

    Source: Radford et al. 2022, arXiv 2212.04356, section 4.5, and the code that its authors published.
    """

    first: int
    eos: int
    max_initial: int | None = None

    def __call__(self, scores: Tensor, tokens: Tensor) -> Tensor:
        """Scores with -inf for the tokens that may not follow.

        Args:
            scores: logits or log-probabilities (B, K, N).
            tokens: generated so far, (B, K, T).

        Returns:
            (B, K, N).
        """
        first, size = self.first, scores.shape[-1]
        scores = scores.clone()
        times, text = scores[..., first:], scores[..., :first]  # views
        count = tokens.shape[-1]
        if count == 0:
            text.fill_(-torch.inf)
            if self.max_initial is not None:
                times[..., self.max_initial + 1 :] = -torch.inf
            return scores
        is_time = tokens >= first
        last, before = is_time[..., -1], is_time[..., -2] if count > 1 else torch.ones_like(is_time[..., -1])
        times.masked_fill_((last & before)[..., None], -torch.inf)
        scores[..., : self.eos].masked_fill_((last & ~before)[..., None], -torch.inf)
        # A segment that has started ends later; what follows an end may start there.
        latest = tokens.masked_fill(~is_time, first - 1).amax(-1)
        earliest = torch.where(last & ~before, latest, latest + 1)
        steps = torch.arange(first, size, device=scores.device)
        times.masked_fill_(steps < earliest[..., None], -torch.inf)
        sooner = times.logsumexp(-1) > text.amax(-1)
        text.masked_fill_(sooner[..., None], -torch.inf)
        return scores
