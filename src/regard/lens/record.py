"""The recorder: what every attention of a model looks at, while the model runs as it always runs.

It acts in the thread that records. Calls of regard's operator and of PyTorch's attention functions are seen where they
are made, whatever library the model is from; each call is repeated for its summaries, so the model's output is its own.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from regard.attention.check import check_integer
from regard.attention.engine.observer import observe, unobserved
from regard.errors import ConfigError, RegardError, ShapeError, nearest
from regard.lens.attention_record import AttentionRecord, Settings
from regard.lens.capture.call import AttentionCall, of_attend
from regard.lens.capture.functions import Caller, FunctionCapture
from regard.lens.capture.modules import around_forward, fused_modules, is_fused, run_in_sight
from regard.lens.recording_view import Tokens, view_of
from regard.lens.view import View

if TYPE_CHECKING:
    from regard.lens.notebook import Frame

BUDGET = 2**28  # bytes of the weights of one call
TRUSTED = 1e-3  # largest error of outputs, relative to their largest number, of weights that are the model's
ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)

# Called with a module, its arguments and its output; returns query, key and value, and other arguments of `attend`.
Adapter = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Mapping[str, Any]]


class NotCaptured(NamedTuple):
    """An attention that could not be recorded."""

    path: str
    reason: str


@final
class Recording(Mapping[str, AttentionRecord]):
    """What each attention did, by its path in the model, in the order in which they first ran.

    A path may be shortened to any beginning that only one attention has. `print(recording)` says what was captured and
    how, what was not and why, and how far the weights reproduce the model's own outputs.
    """

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self.settings = settings
        self.notes: list[str] = []
        self._records: dict[str, AttentionRecord] = {}
        self._lines: dict[str, list[int]] = {}
        self._refused: dict[str, str] = {}
        self._ran: dict[str, str] = {}
        self._name = type(model).__name__

    def __getitem__(self, path: str) -> AttentionRecord:
        if path in self._records:
            record = self._records[path]
        else:
            several = [
                name for name in self._records if name.startswith(f"{path}.") or (path and name.startswith(path))
            ]
            if len(several) != 1:
                among = f"{', '.join(several)} begin so" if several else nearest(path, list(self._records) or ["none"])
                raise KeyError(f"no attention {path!r} was recorded: {among}")
            record = self._records[several[0]]
        if record.mismatch is not None:
            raise ShapeError(
                f"record: {record.path or 'the attention'} ran {record.calls} times, and {record.mismatch} cannot be "
                "joined; record one run of whole sequences at a time"
            )
        return record

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._records))

    def __len__(self) -> int:
        return len(self._records)

    def take(self, caller: Caller, call: AttentionCall) -> None:
        """Record a call; one whose weights cannot be had, or are not those of the model, is noted and left out."""
        lines = self._lines.setdefault(caller.path, [])
        if caller.line not in lines:
            lines.append(caller.line)
        number = lines.index(caller.line)
        path = caller.path if number == 0 else f"{caller.path}#{number + 1}"
        record = self._records.get(path) or AttentionRecord(path, self.settings)
        try:
            record.add(call)
        except RegardError as error:
            self.refuse(path, str(error))
            return
        if record.error is not None and record.error > TRUSTED * _rounding(call):
            self._records.pop(path, None)
            self.refuse(path, f"{call.kind}: the weights do not reproduce the output (error {record.error:.2g})")
            return
        if path not in self._refused:
            self._records[path] = record

    def refuse(self, path: str, reason: str) -> None:
        """Note that an attention cannot be recorded."""
        self._refused.setdefault(path, reason)

    def saw_run(self, path: str, kind: str) -> None:
        """Note that a module ran whose name says that it is attention."""
        self._ran.setdefault(path, kind)

    @property
    def not_captured(self) -> list[NotCaptured]:
        """The attentions that ran and were not recorded, and why."""
        left = [NotCaptured(path, reason) for path, reason in self._refused.items()]
        known = {*self._records, *self._refused}
        for path, kind in self._ran.items():
            if not any(_related(path, name.partition("#")[0]) for name in known):
                left.append(NotCaptured(path, f"{kind} computes no softmax that multiplies values"))
        outer = [x for x in left if not any(x.path.startswith(f"{other.path}.") for other in left)]
        return sorted(outer)

    def view(self, tokens: Tokens | None = None, *, title: str = "What the model attends to", batch: int = 0) -> View:
        """All maps over labeled tokens; see `view_of`."""
        notes = [*self.notes, *(f"{path or 'itself'}: {reason}" for path, reason in self.not_captured)]
        return view_of(self._checked(), tokens, title=title, batch=batch, notes=notes)

    def page(self, file: str | Path, tokens: Tokens | None = None, *, title: str = "What the model attends to") -> None:
        """Write one HTML file that needs no network.

        Args:
            file: its path.
            tokens: labels of the places; see `view_of`.
            title: of the page.
        """
        from regard.lens.page import page

        Path(file).write_text(page(self.view(tokens, title=title)), encoding="utf-8")

    def show(
        self, tokens: Tokens | None = None, *, title: str = "What the model attends to", height: int = 900
    ) -> "Frame":
        """The page inside a notebook, as the last value of a cell.

        Args:
            tokens: labels of the places; see `view_of`.
            title: of the page.
            height: of the frame, in pixels.

        Returns:
            What notebooks show as a frame; nothing is shown elsewhere.
        """
        return self.view(tokens, title=title).show(height=height)

    def picture(
        self,
        file: str | Path,
        tokens: Tokens | None = None,
        *,
        kind: str | None = None,
        layer: int | None = None,
        head: int | None = None,
        colors: str = "blue",
    ) -> None:
        """Write one map as a PNG or SVG file.

        Args:
            file: its path, which ends in .png or .svg.
            tokens: labels of the places; see `view_of`.
            kind: of attention; the first by default.
            layer, head: counted from 1; None for the mean.
            colors: "blue" or "cividis".

        Raises:
            ConfigError: another format, a map that there is not, or matplotlib is not installed.
        """
        from regard.lens import picture

        picture.save(self.view(tokens).map(kind, layer=layer, head=head), file, colors=colors)

    def terminal(
        self,
        tokens: Tokens | None = None,
        *,
        kind: str | None = None,
        layer: int | None = None,
        head: int | None = None,
        columns: int | None = None,
        color: bool | None = None,
    ) -> str:
        """One map as text to print.

        Args:
            tokens: labels of the places; see `view_of`.
            kind: of attention; the first by default.
            layer, head: counted from 1; None for the mean.
            columns: how wide it may be; as wide as the terminal by default.
            color: whether to write color codes; by default, if standard output is a terminal that shows them.

        Returns:
            Lines; see `terminal.draw`.

        Raises:
            ConfigError: a map that there is not, or a width below 40.
        """
        from regard.lens import terminal

        return terminal.draw(self.view(tokens).map(kind, layer=layer, head=head), columns=columns, color=color)

    def _repr_html_(self) -> str | None:
        """As notebooks show it: one map; `show` gives all."""
        return self.view()._repr_html_()

    def _checked(self) -> Mapping[str, AttentionRecord]:
        return {path: self[path] for path in self}

    def __str__(self) -> str:
        lines = [f"{len(self)} attentions of {self._name} recorded"]
        for path, record in self._records.items():
            batch, heads, queries, keys = record.shape
            error = "not measured" if record.error is None else f"{record.error:.1e}"
            lines.append(
                f"  {path or 'itself'}: {', '.join(record.kinds)}, {record.calls} calls, {batch} x {heads} heads, "
                f"{queries:,} x {keys:,}, error of outputs {error}"
            )
        left = self.not_captured
        if left:
            lines += [f"{len(left)} not captured", *(f"  {path or 'itself'}: {reason}" for path, reason in left)]
        return "\n".join([*lines, *self.notes])

    def __repr__(self) -> str:
        return f"Recording({', '.join(repr(record) for record in self._records.values())})"


@contextmanager
def record(
    model: nn.Module,
    *,
    grid: int = 64,
    top: int = 8,
    weights: bool = False,
    values: bool = False,
    gradients: bool = False,
    differentiable: bool = False,
    budget: int = BUDGET,
    adapters: Mapping[str, Adapter] | None = None,
) -> Iterator[Recording]:
    """Record what the attentions of a model look at inside the `with` block, in this thread.

    The model runs as without the recorder, on its fused paths, and its outputs are the same. Recorded are all calls of
    `attend`, `scaled_dot_product_attention` and `flex_attention`, of `nn.MultiheadAttention` and
    `nn.TransformerEncoderLayer`, and of softmaxes that multiply values, in any torch module. Of each attention it keeps
    a map in bins, and each query's entropy, expected key and largest weights, without any L x S memory. Compiled
    code, and `flex_attention`, which compiles itself, run eagerly.

    Args:
        model: any module; also one that is compiled, or wrapped for data-parallel training.
        grid: bins of queries and of keys that a map has at most.
        top: largest weights that are kept of each query.
        weights: keep the weights too. Where those of a call take more than `budget`, queries are sampled: one of each
            of equal strata.
        values: keep the values.
        gradients: keep the gradients of outputs, which a backward pass brings.
        differentiable: let entropy, expected key and key mass carry gradients.
        budget: bytes for the weights of one call.
        adapters: by the path of a module that computes attention in a way of its own, a function of (module, args,
            kwargs, output) that returns its "query", "key", "value" and what else `attend` takes.

    Yields:
        A `Recording`: an `AttentionRecord` for each attention, by path. It can be read inside the block and after it.

    Raises:
        ConfigError: a number below 1, or an adapter of a path that the model has not.

    >>> layer = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    >>> x = torch.randn(1, 5, 8)
    >>> with record(layer) as recording:
    ...     output, _ = layer(x, x, x)
    >>> recording[""].head(1).grid.shape
    torch.Size([5, 5])
    """
    for name, number in (("grid", grid), ("top", top), ("budget", budget)):
        check_integer("record", name, number, 1)
    settings = Settings(
        grid=grid, top=top, weights=weights, values=values, gradients=gradients, differentiable=differentiable,
        budget=budget,
    )  # fmt: skip
    inner = _unwrapped(model)
    recording = Recording(inner, settings)
    with intercept(model, recording.take, recording.refuse, adapters=adapters, ran=recording.saw_run) as compiled:
        if compiled:
            recording.notes.append("the model is compiled; it was recorded without its compiled code")
        yield recording
    if not recording:
        left = "; ".join(f"{path or 'itself'}: {reason}" for path, reason in recording.not_captured)
        warnings.warn(f"record: no attention of {type(inner).__name__} was captured. {left}".strip(), stacklevel=3)


@contextmanager
def intercept(
    model: nn.Module,
    handle: Callable[[Caller, AttentionCall], Tensor | None],
    refuse: Callable[[str, str], None],
    *,
    adapters: Mapping[str, Adapter] | None = None,
    ran: Callable[[str, str], None] | None = None,
) -> Iterator[bool]:
    """Call a function for each call of attention inside the block, in this thread.

    Args:
        model: any module.
        handle: called with the module that called, and with the call; returns the output to use instead, or None.
        refuse: called with a path and a reason where a call cannot be seen.
        adapters: as for `record`.
        ran: called with path and class of modules that ran and whose class is named as attention.

    Yields:
        Whether parts of the model are compiled; they run without their compiled code.
    """
    inner = _unwrapped(model)
    modules = {_plain_path(path): part for path, part in inner.named_modules()}
    paths = {id(part): path for path, part in modules.items()}
    for path in adapters or {}:
        if path not in modules:
            raise ConfigError(f"record: no module {path!r} for an adapter; {nearest(path, list(modules))}")
    busy = False

    def guarded(caller: Caller, call: AttentionCall) -> Tensor | None:
        nonlocal busy
        if busy:  # what repeats a call is no call of the model
            return None
        busy = True
        capture.calls += 1
        try:
            with unobserved(), torch._C.DisableTorchFunction():
                return handle(caller, call)
        finally:
            busy = False

    capture = FunctionCapture(paths, guarded, lambda caller, reason: refuse(caller.path, reason))

    def attended(output: Tensor, query: Tensor, key: Tensor, value: Tensor, arguments: Mapping[str, Any]) -> Any:
        caller = capture.caller(inside_operator=True)
        return None if caller is None else guarded(caller, of_attend("attend", output, query, key, value, arguments))

    def around(module: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not capture.is_active or not is_fused(module):
            return forward(*args, **kwargs)
        before = capture.calls
        with torch._C.DisableTorchFunction():
            output = forward(*args, **kwargs)
        if capture.calls == before:
            with torch._C._EnableTorchFunction():  # type: ignore[attr-defined]
                run_in_sight(module, args, kwargs)
        return output

    compiled = any(hasattr(part, "_orig_mod") or part._compiled_call_impl is not None for part in model.modules())
    with ExitStack() as stack:
        for path, adapter in (adapters or {}).items():
            stack.enter_context(_hooked(modules[path], _adapted(path, adapter, capture, guarded)))
        if ran is not None:
            for path, part in modules.items():
                if ATTENTION.search(type(part).__name__) and not type(part).__module__.startswith(
                    ("torch.", "regard.")
                ):
                    stack.enter_context(_hooked(part, _noting(path, ran, capture)))
        stack.enter_context(torch.compiler.set_stance("force_eager"))  # compiled code cannot be seen into
        stack.enter_context(around_forward(fused_modules(inner), around))
        stack.enter_context(observe(attended))
        stack.enter_context(capture)
        yield compiled


@contextmanager
def _hooked(module: nn.Module, hook: Any) -> Iterator[None]:
    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _noting(path: str, ran: Callable[[str, str], None], capture: FunctionCapture) -> Any:
    """A hook that notes that the module ran."""

    def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if capture.is_active:
            ran(path, type(module).__name__)

    return note


def _adapted(path: str, adapter: Adapter, capture: FunctionCapture, handle: Any) -> Any:
    """A hook that asks a module's adapter what it attended to."""

    def adapt(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not capture.is_active:
            return
        inputs = dict(adapter(module, args, kwargs, output))
        query, key, value = (inputs.pop(name) for name in ("query", "key", "value"))
        known = inputs.pop("output", None)
        call = of_attend("adapter", known, query, key, value, inputs)
        handle(Caller(path, 0, module), call)

    return adapt


def _unwrapped(model: nn.Module) -> nn.Module:
    """The module inside of what compiles it or trains it in parallel."""
    while True:
        if isinstance(model, DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def _plain_path(path: str) -> str:
    """A path without what compiled parts add to it."""
    return ".".join(name for name in path.split(".") if name != "_orig_mod")


def _related(one: str, other: str) -> bool:
    """Whether one module is the other or inside of it."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.") or "" in (one, other)


def _rounding(call: AttentionCall) -> float:
    """How many times the trusted error the call's dtype allows for."""
    dtype = torch.float32 if call.output is None else call.output.dtype
    return max(1.0, 4 * torch.finfo(dtype).eps / TRUSTED)
