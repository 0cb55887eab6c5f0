"""What the attentions of a model did, while it ran as it always runs.

The recorder asks every attention for a summary and takes it off again, by PyTorch's hooks on the attention modules:
models know nothing of it, and their outputs don't change. The hooks act in the thread that records, and in no other
that runs the same model.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from regard.attention.summary import Seen, Summary
from regard.errors import ConfigError, ShapeError
from regard.layers.attention_module import AttentionModule
from regard.layers.multi_head_attention import MultiHeadAttention

WEIGHTS = Summary(weights=True)
_active: ContextVar[tuple["Recording", ...]] = ContextVar("recordings", default=())
BY_KEY = ("key_mass", "weights")  # summaries whose last axis is the keys, which may grow from call to call


@final
class Recording(Mapping[str, Seen]):
    """What each attention did, by its path in the model: those that ran, in the model's order.

    The calls of one attention are joined along the queries: a model that writes a token at a time looks like one that
    writes them all at once. Keys that came later have weight 0 before.
    """

    def __init__(self, paths: list[str]) -> None:
        self._calls: dict[str, list[Seen]] = {path: [] for path in paths}

    def __getitem__(self, path: str) -> Seen:
        if not self._calls[path]:
            raise KeyError(path)
        self._calls[path] = [_joined(path, self._calls[path])]
        return self._calls[path][0]

    def __iter__(self) -> Iterator[str]:
        return (path for path, calls in self._calls.items() if calls)

    def __len__(self) -> int:
        return sum(bool(calls) for calls in self._calls.values())

    def __repr__(self) -> str:
        ran = (f"{path or 'itself'}: {len(self._calls[path])} calls" for path in self)
        return f"Recording({', '.join(ran)})"

    def add(self, path: str, seen: Seen) -> None:
        """Take in one call of the attention at `path`."""
        self._calls[path].append(seen)


@contextmanager
def record(module: nn.Module, summary: Summary = WEIGHTS) -> Iterator[Recording]:
    """Record what the attentions of a model do inside the `with` block, in this thread.

    Args:
        module: the model; it runs as without the recorder, and its outputs are the same.
        summary: what to record of each attention; all its weights by default.

    Yields:
        A `Seen` for each attention that ran, by its path in the model, such as "decoder.0.cross_attention".
        Calls of one attention are joined along L. It can be read inside the block and after it.

    Raises:
        ConfigError: a model without attention, or one whose attention already is being recorded.
        ShapeError: on reading, calls that cannot be joined: of different batches, or of a grid.

    >>> layer = rg.MultiHeadAttention(8, 2)
    >>> with record(layer, rg.Summary(entropy=True)) as seen:
    ...     output = layer(torch.randn(1, 3, 8))
    >>> seen[""].entropy.shape
    torch.Size([1, 2, 3])
    """
    kinds = (AttentionModule, MultiHeadAttention)
    attentions = {path: part for path, part in module.named_modules() if isinstance(part, kinds)}
    if not attentions:
        raise ConfigError(f"record: {type(module).__name__} has no attention to look at")
    recording = Recording(list(attentions))
    hooks = []
    token = _active.set((*_active.get(), recording))
    try:
        for path, attention in attentions.items():
            hooks.append(attention.register_forward_pre_hook(_asking(path, summary, recording), with_kwargs=True))
            hooks.append(attention.register_forward_hook(_taking(path, recording)))
        yield recording
    finally:
        _active.reset(token)
        for hook in hooks:
            hook.remove()


def _is_active(recording: Recording) -> bool:
    """Whether this thread is in the recording's `with` block."""
    return any(one is recording for one in _active.get())


def _asking(path: str, summary: Summary, recording: Recording) -> Any:
    """A hook that asks the attention for the summary."""

    def ask(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if not _is_active(recording):
            return None
        if options.get("summary") is not None:
            raise ConfigError(
                f"record: {path or type(module).__name__} is asked for {options['summary']} already; leave it out, or "
                "let one recorder ask for all that you want"
            )
        return inputs, {**options, "summary": summary}

    return ask


def _taking(path: str, recording: Recording) -> Any:
    """A hook that keeps the summary and gives the model its output alone."""

    def take(module: nn.Module, inputs: tuple[Any, ...], found: Any) -> Tensor | None:
        if not _is_active(recording):
            return None
        output, seen = found
        recording.add(path, seen)
        return output

    return take


def _joined(path: str, calls: list[Seen]) -> Seen:
    """All calls as one."""
    if len(calls) == 1:
        return calls[0]
    joined = {}
    for name in (field.name for field in fields(Seen)):
        parts = [part for call in calls if (part := getattr(call, name)) is not None]
        if not parts:
            continue
        batches = {part.shape[0] for part in parts}
        if name == "grid" or len(batches) > 1:
            what = "grids of bins" if name == "grid" else f"queries in batches of {sorted(batches)}"
            raise ShapeError(
                f"record: {path or 'the attention'} ran {len(calls)} times, and {what} cannot be joined; record one "
                "run of whole sequences at a time"
            )
        if name in BY_KEY:
            keys = max(part.shape[-1] for part in parts)
            parts = [pad(part, (0, keys - part.shape[-1])) for part in parts]
        joined[name] = torch.stack(parts).sum(0) if name == "key_mass" else torch.cat(parts, 2)
    return Seen(**joined)
