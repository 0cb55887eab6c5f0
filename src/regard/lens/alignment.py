"""Attention between the words of a sentence pair: weights of every layer and head, summed over subwords.

Layout: H heads, T target words, S source words, both with their end mark.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from regard.errors import ConfigError, ShapeError, nearest
from regard.lens.text import printable, shortened
from regard.lens.view import Axis, HeatMap, LayerView, View, bin_edges, binned, check_number

READ = "target read"  # axis of the decoder's input: the target shifted by one
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
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Alignment:
    """Attention between the words of a source and a target, in every layer of a model.

    Args:
        source: the words of the source and its end mark; or of the one text that a model reads.
        target: the words of the target and its end mark.
        weights: by the attention's path in the model, (H, T, S) for "cross_attention", (H, S, S) for the encoder's
            "self_attention" and (H, T, T) for the decoder's, whose columns are a start mark and the target words
            before the end mark.
        source_numbers, target_numbers: of each word, its number among those of the text, counted from 0; None of a word
            that does not count, as marks and prefixes. By default all words count but the end marks.
        finished: whether the model ended the target by itself; if not, it was cut at the greatest length.

    Raises:
        ShapeError: weights or numbers of other sizes than the words, or weights that are not finite.
        ConfigError: an attention that is neither of these.
    """

    source: list[str]
    target: list[str]
    weights: dict[str, Tensor]
    source_numbers: Sequence[int | None] | None = None
    target_numbers: Sequence[int | None] | None = None
    finished: bool = True

    def __post_init__(self) -> None:
        for words, numbers in ((self.source, self.source_numbers), (self.target, self.target_numbers)):
            if numbers is not None and len(numbers) != len(words):
                raise ShapeError(f"Alignment: {len(numbers)} numbers of {len(words)} words; expected one of each")
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
        kinds = {kind_of(path) for path in self.weights}
        return [kind for kind in AXES if kind in kinds]

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
        if kind == "decoder":  # of several pieces, each has a start
            return self.target, [START, *(START if word == END else word for word in self.target[:-1])]
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
        check_number("layer", layer, len(layers))
        chosen = layers if layer is None else [layers[layer - 1]]
        check_number("head", head, min(len(weights) for weights in chosen))
        heads = [weights.mean(0) if head is None else weights[head - 1] for weights in chosen]
        rows, columns = self.words(kind)
        counts = [("layer", layer, len(layers)), ("head", head, len(chosen[0]))]
        parts = [f"mean of {n} {name}s" if i is None else f"{name} {i}" for name, i, n in counts if n > 1]
        return HeatMap(
            rows=rows,
            columns=columns,
            row_axis=AXES[kind][0],
            column_axis=AXES[kind][1],
            weights=torch.stack(heads).mean(0),
            title=", ".join([f"Attention of {NAMES[kind]}", *parts]),
        )

    def view(self, *, grid: int = 96, title: str = "What the model attends to") -> View:
        """All maps as a view for pages and pictures.

        Args:
            grid: bins on each side, at most; maps of no more words have a word a bin.
            title: of the view.
        """
        axes: dict[str, Axis] = {}
        layers = []
        for path, weights in self.weights.items():
            kind = kind_of(path)
            names = AXES[kind] if kind != "decoder" else ("target", READ)
            for name, words in zip(names, self.words(kind), strict=True):
                marks = frozenset(i for i, word in enumerate(words) if word in (START, END))
                axes[name] = Axis(name=name, labels=words, special=marks)
            edges = [bin_edges(len(words), grid) for words in self.words(kind)]
            layers.append(
                LayerView(
                    path=path, rows=names[0], columns=names[1], grid=binned(weights.detach().float().cpu(), *edges),
                    row_edges=edges[0], column_edges=edges[1],
                )
            )  # fmt: skip
        return View(title=title, axes=axes, layers=layers)

    def pharaoh(self) -> str:
        """The source word of each target word, as "0-0 2-1": source index, target index, counted from 0.

        Each target word that counts goes with the source word that counts of the largest weight in the mean of all
        layers and heads; one that gives these no weight has none.

        Returns:
            One line, without its end.

        Raises:
            ConfigError: a model without cross-attention.
        """
        weights = self.map("cross").weights
        rows, row_numbers = _counted(self.target_numbers, len(self.target))
        columns, column_numbers = _counted(self.source_numbers, len(self.source))
        if not rows or not columns:
            return ""
        largest = weights[rows][:, columns].max(1)
        pairs = zip(largest.values.tolist(), largest.indices.tolist(), row_numbers, strict=True)
        return " ".join(f"{column_numbers[i]}-{target}" for weight, i, target in pairs if weight > 0)


def joined(alignments: Sequence[Alignment]) -> Alignment:
    """The alignments of the pieces of one text as one, in which no piece attends to another.

    Args:
        alignments: of one model, one after the other; at least one.

    Returns:
        The words of all, each piece with its end marks.
    """
    if len(alignments) == 1:
        return alignments[0]
    sides = {
        side: [x for one in alignments for x in getattr(one, side)]
        for side in ("source", "target", "source_numbers", "target_numbers")
    }
    weights = {
        path: torch.stack(
            [torch.block_diag(*heads) for heads in zip(*(one.weights[path] for one in alignments), strict=True)]
        )
        for path in alignments[0].weights
    }
    return Alignment(**sides, weights=weights, finished=all(one.finished for one in alignments))


def _counted(numbers: Sequence[int | None] | None, words: int) -> tuple[list[int], list[int]]:
    """The places of the words that count, and their numbers."""
    each = range(words - 1) if numbers is None else numbers
    places = [(place, number) for place, number in enumerate(each) if number is not None]
    return [place for place, _ in places], [number for _, number in places]


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
