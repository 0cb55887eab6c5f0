"""Attention settings of a layer: plain values, and learned values with their parameters."""

from typing import Any, final

import torch
from torch import nn

from regard.attention.check import show
from regard.attention.normalizer import Normalizer
from regard.attention.value import Value, has_tensors
from regard.errors import ConfigError
from regard.layers.learned import (
    ALiBiSlopes,
    Learned,
    LearnedAdditive,
    LearnedBilinear,
    LearnedCosine,
    LearnedEntmax,
    LearnedLocation,
    LearnedRelativeBias,
    LearnedSigmoid,
    LearnedSink,
)

SETTINGS: tuple[type[Learned], ...] = (
    LearnedCosine, LearnedBilinear, LearnedAdditive, LearnedLocation, LearnedEntmax, LearnedSink, LearnedSigmoid,
    LearnedRelativeBias, ALiBiSlopes,
)  # fmt: skip


@final
class LearnedValue(nn.Module):
    """Module that holds the tensors of a learned setting, as parameters or buffers, and builds its value.

    Args:
        setting: the learned setting.
        num_heads: H.
        head_dim: E.
    """

    def __init__(self, setting: Learned, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.setting, self.num_heads, self.head_dim = setting, num_heads, head_dim
        start = setting.start(num_heads, head_dim)
        self.names = tuple(start)
        for name, tensor in start.items():
            if setting.trained:
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor, persistent=False)
        self.forward()  # fail here for invalid settings, not in the first training step

    def reset_parameters(self) -> None:
        """Reset the tensors to their initial values."""
        with torch.no_grad():
            for name, tensor in self.setting.start(self.num_heads, self.head_dim).items():
                getattr(self, name).copy_(tensor)

    def forward(self) -> Value:
        """Build the value from the current tensors."""
        return self.setting.build({name: getattr(self, name) for name in self.names})

    def extra_repr(self) -> str:
        return repr(self.setting)


def make_setting(
    owner: str, name: str, setting: object, kind: type[Value], num_heads: int, head_dim: int
) -> nn.Module | Value:
    """Check a setting of a layer and convert it to the attribute that the layer stores.

    Args:
        owner: class name of the layer, for messages.
        name: name of the setting.
        setting: a value of type `kind` that holds no tensor, or a learned setting for one.
        kind: `Score`, `Normalizer`, `Pattern` or `Bias`.
        num_heads: H.
        head_dim: E.

    Returns:
        The value, or a `LearnedValue`.

    Raises:
        ConfigError: a setting of another type, or one that holds a tensor.
    """
    if isinstance(setting, Learned) and issubclass(setting.makes, kind):
        return LearnedValue(setting, num_heads, head_dim)
    if not isinstance(setting, kind):
        known = [k.__name__ for k in kind.__subclasses__()]
        known += [s.__name__ for s in SETTINGS if issubclass(s.makes, kind)]
        raise ConfigError(f"{owner}: {name}={show(setting)} is not a {kind.__name__}; known: {', '.join(known)}")
    if has_tensors(setting):
        raise ConfigError(
            f"{owner}: {name}={setting} holds a tensor, which would not be in the layer's state_dict, nor move or "
            f"train with the layer; {_remedy(name, setting)}"
        )
    return setting


def build_value(part: nn.Module | Value) -> Any:
    """Value of the result of `make_setting`, from its current tensors."""
    return part if isinstance(part, Value) else part()


def build_normalizer(part: nn.Module | Value, training: bool) -> Normalizer:
    """Normalizer of the result of `make_setting`: in training it may sample, in evaluation it does not."""
    normalizer: Normalizer = build_value(part)
    return normalizer if training else normalizer.in_evaluation()


def _remedy(name: str, value: Value) -> str:
    """Suggestion for the message about a value that holds a tensor."""
    for setting in SETTINGS:
        if setting.makes is type(value):
            return f"give {setting.__name__}(...), whose tensors the layer owns"
    if name in ("pattern", "position_bias"):
        return f"pass it to each call, as layer(x, {name.removeprefix('position_')}=...)"
    return "give numbers, or a learned setting"
