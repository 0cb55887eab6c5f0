"""What the words of a sentence pair attended to: the weights of every layer and head, words instead of subwords.

Layout: H heads, T target words, S source words, both with their end mark.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from regard.errors import ConfigError, ShapeError, nearest
from regard.lens.text import printable, shortened

START, END = "[start]", "[end]"  # the tokens before the first word and after the last, as words

# Which words attend (the rows) and which are attended to (the columns), by kind of attention. The row of a target
# word is the step that wrote it; what it could read are the words before it.
AXES = {
    "cross": ("target", "source"),
    "encoder": ("source", "source"),
    "decoder": ("target", "target"),
    "text": ("text", "text"),
}
NAMES = {
    "cross": "target to source",
    "encoder": "source to itself",
    "decoder": "target to itself",
    "text": "a text to itself",
}
LONGEST_TEXT = 60  # columns of a terminal, where an alignment is printed
STACKS = {"encoder": "encoder", "decoder": "decoder", "layers": "text"}  # which kind the layers of a part are


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class HeatMap:
    """One map of weights with words on its axes: what every view draws.

    Args:
        rows, columns: the words that attend, and those attended to.
        row_axis, column_axis: what the words are, "source", "target" or "text".
        weights: (rows, columns).
        title: what the map shows.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    row_axis: str
    column_axis: str
    weights: Tensor
    title: str

    def _repr_html_(self) -> str:
        """As notebooks show it."""
        from regard.lens.notebook import table

        return table(self)


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Alignment:
    """What the words of a target and its source attended to, in every attention of a model.

    Args:
        source: the words of the source and its end mark; or of the one text that a model reads.
        target: the words of the target and its end mark.
        weights: by the attention's path in the model, (H, T, S) for "cross_attention", (H, S, S) for the encoder's
            "self_attention" and (H, T, T) for the decoder's, whose columns are a start mark and the target words
            before the end mark.

    Raises:
        ShapeError: weights of other sizes than the words, or that are not finite.
        ConfigError: an attention that is neither of these.
    """

    source: list[str]
    target: list[str]
    weights: dict[str, Tensor]

    def __post_init__(self) -> None:
        for path, weights in self.weights.items():
            rows, columns = (len(self.target if axis == "target" else self.source) for axis in AXES[kind_of(path)])
            if weights.dim() != 3 or tuple(weights.shape[1:]) != (rows, columns):
                raise ShapeError(
                    f"Alignment: {path} has weights of shape {tuple(weights.shape)}; expected (heads, {rows}, "
                    f"{columns}), the numbers of words"
                )
            if not bool(weights.isfinite().all()):
                raise ShapeError(
                    f"Alignment: {path} has {int((~weights.isfinite()).sum())} weights that are not finite; are the "
                    "model's parameters?"
                )

    def __repr__(self) -> str:
        texts = [
            repr(shortened(printable(" ".join(words)), LONGEST_TEXT)) for words in (self.source, self.target) if words
        ]
        counts = {kind: len(self.layers(kind)) for kind in self.kinds}
        kinds = [f"{kind}: {count} layer{'s' if count > 1 else ''}" for kind, count in counts.items()]
        return f"Alignment({' -> '.join(texts)}, {', '.join(kinds) or 'no attention'})"

    def _repr_html_(self) -> str | None:
        """As notebooks show it: the mean of all layers and heads of the first kind."""
        return self.map(self.kinds[0])._repr_html_() if self.kinds else None

    @property
    def kinds(self) -> list[str]:
        """The kinds of attention there are: of "cross", "encoder", "decoder" and "text"."""
        found = {kind_of(path) for path in self.weights}
        return [kind for kind in AXES if kind in found]

    def layers(self, kind: str = "cross") -> dict[str, Tensor]:
        """The weights of one kind of attention by path, in the model's order.

        Args:
            kind: "cross", "encoder", "decoder" or "text".

        Returns:
            At least one layer.

        Raises:
            ConfigError: a kind that the model has not.
        """
        if kind not in self.kinds:
            raise ConfigError(f"attention: the model has no kind {kind!r}; {nearest(kind, self.kinds)}")
        return {path: weights for path, weights in self.weights.items() if kind_of(path) == kind}

    def words(self, kind: str = "cross") -> tuple[list[str], list[str]]:
        """The words that attend, and those that are attended to."""
        if kind == "decoder":
            return self.target, [START, *self.target[:-1]]
        return (self.target if kind == "cross" else self.source), self.source

    def map(self, kind: str = "cross", *, layer: int | None = None, head: int | None = None) -> HeatMap:
        """One map to look at.

        Args:
            kind: "cross", "encoder", "decoder" or "text".
            layer: counted from 1; None for the mean of the layers.
            head: counted from 1; None for the mean of the heads.

        Returns:
            The map, with the words of its axes.

        Raises:
            ConfigError: a kind, layer or head that the model has not.
        """
        layers = list(self.layers(kind).values())
        _check_number("layer", layer, len(layers))
        chosen = layers if layer is None else [layers[layer - 1]]
        _check_number("head", head, min(len(weights) for weights in chosen))
        heads = [weights.mean(0) if head is None else weights[head - 1] for weights in chosen]
        rows, columns = self.words(kind)
        counts = [("layer", layer, len(layers)), ("head", head, len(chosen[0]))]
        said = [f"mean of {n} {name}s" if i is None else f"{name} {i}" for name, i, n in counts if n > 1]
        return HeatMap(
            rows=rows,
            columns=columns,
            row_axis=AXES[kind][0],
            column_axis=AXES[kind][1],
            weights=torch.stack(heads).mean(0),
            title=", ".join([f"Attention of {NAMES[kind]}", *said]),
        )

    def pharaoh(self) -> str:
        """The source word of each target word, as "0-0 2-1": source index, target index, counted from 0.

        Each target word but the end mark goes with the source word, but for the end mark, of the largest weight in
        the mean of all layers and heads.

        Returns:
            One line, without its end.

        Raises:
            ConfigError: a model without cross-attention.
        """
        weights = self.map("cross").weights[: len(self.target) - 1, : len(self.source) - 1]
        if not weights.numel():
            return ""
        return " ".join(f"{source}-{target}" for target, source in enumerate(weights.argmax(1).tolist()))


def kind_of(path: str) -> str:
    """Which of `AXES` an attention is, by its path in the model."""
    *parents, name = path.split(".")
    if name == "cross_attention":
        return "cross"
    if name == "self_attention" and parents and parents[0] in STACKS:
        return STACKS[parents[0]]
    raise ConfigError(
        f"attention: {path!r} has no kind; expected a path such as decoder.0.cross_attention or "
        "encoder.0.self_attention"
    )


def merged(weights: Tensor, rows: Iterable[range], columns: Iterable[range]) -> Tensor:
    """The weights between words, from those between their pieces.

    A word gets what its pieces get together, and gives what they give in the mean: rows go on summing to 1.

    Args:
        weights: (..., row pieces, column pieces).
        rows, columns: the pieces of each word.

    Returns:
        (..., row words, column words).
    """
    summed = torch.stack([weights[..., r.start : r.stop].sum(-1) for r in columns], -1)
    return torch.stack([summed[..., r.start : r.stop, :].mean(-2) for r in rows], -2)


def _check_number(name: str, number: int | None, most: int) -> None:
    if number is not None and not 1 <= number <= most:
        raise ConfigError(f"attention: {name}={number} is not one of the {most} there are; count from 1 to {most}")
