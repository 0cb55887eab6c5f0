"""Base class of the attention modules of a model."""

from abc import ABC

from torch import nn


class AttentionModule(nn.Module, ABC):
    """Module whose `forward` takes `summary: Summary | None = None`.

    Without a summary, `forward` returns its output; with one, (output, SummaryResult). Tools that inspect the
    attention of a model find its modules of this class, add the summary in a forward pre-hook and remove the
    `SummaryResult` in a forward hook, so that models need no code for it.
    """
