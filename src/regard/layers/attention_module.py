"""What every attention of a model has in common, so that it can be looked into from outside."""

from abc import ABC

from torch import nn


class AttentionModule(nn.Module, ABC):
    """A module whose `forward` takes `summary: Summary | None = None`.

    Without a summary it returns its output; with one, (output, Seen). Whatever wants to see a model's attention finds
    the modules of this kind, asks by a forward pre-hook and takes the answer off in a forward hook: models know
    nothing of it.
    """
