"""How a layer keeps the values of its attention: plain data as they are, learned ones with their tensors."""

from typing import Any, final

import torch
from torch import nn

from regard.attention.check import show
from regard.attention.value import Value, holds_tensors
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
    """The tensors of a learned setting, as parameters or constants of a layer.

    Args:
        setting: what the value is built from.
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
        self.forward()  # a setting that means nothing fails here, and not in the first step of training

    def reset_parameters(self) -> None:
        """Start again."""
        with torch.no_grad():
            for name, tensor in self.setting.start(self.num_heads, self.head_dim).items():
                getattr(self, name).copy_(tensor)

    def forward(self) -> Value:
        """The value from the tensors as they are now."""
        return self.setting.build({name: getattr(self, name) for name in self.names})

    def extra_repr(self) -> str:
        return repr(self.setting)


def keep(owner: str, name: str, setting: object, kind: type[Value], num_heads: int, head_dim: int) -> nn.Module | Value:
    """What a layer keeps as an attribute for one of its settings.

    Args:
        owner: the layer's class, for messages.
        name: of the setting.
        setting: a value of this kind that holds no tensor, or a learned setting for one.
        kind: `Score`, `Normalizer`, `Pattern` or `Bias`.
        num_heads: H.
        head_dim: E.

    Returns:
        The value, or a `LearnedValue`.

    Raises:
        ConfigError: a setting of another kind, or one that holds a tensor.
    """
    if isinstance(setting, Learned) and issubclass(setting.makes, kind):
        return LearnedValue(setting, num_heads, head_dim)
    if not isinstance(setting, kind):
        known = [k.__name__ for k in kind.__subclasses__()]
        known += [s.__name__ for s in SETTINGS if issubclass(s.makes, kind)]
        raise ConfigError(f"{owner}: {name}={show(setting)} is not a {kind.__name__}; known: {', '.join(known)}")
    if holds_tensors(setting):
        raise ConfigError(
            f"{owner}: {name}={setting} holds a tensor, which would be missing from the layer's state_dict and would "
            f"not move or train with it; {_remedy(name, setting)}"
        )
    return setting


def current(part: nn.Module | Value) -> Any:
    """The value of what `keep` gave, from its tensors as they are now."""
    return part if isinstance(part, Value) else part()


def _remedy(name: str, value: Value) -> str:
    """What to give instead of a value that holds a tensor."""
    for setting in SETTINGS:
        if setting.makes is type(value):
            return f"give {setting.__name__}(...), whose tensors the layer owns"
    if name in ("pattern", "position_bias"):
        return f"give it to each call, as layer(x, {name.removeprefix('position_')}=...)"
    return "give numbers, or a learned setting"
