"""Studies of a model on many records: alignment error, heads, faithfulness; each gives a table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from regard.errors import ConfigError, DataError
from regard.layers.evaluation import in_evaluation
from regard.lens.alignment import Alignment
from regard.lens.alignment_error import AlignmentError, Gold, Links, alignment_error, extract, ibm_model_1
from regard.lens.attribute import Explained, attributions, mean_of, trust
from regard.lens.faithfulness import Faithfulness
from regard.lens.heads import ablated, importance, redundant, states
from regard.lens.record import record

IBM = "IBM model 1, trained on these pairs"


class AlignmentRow(NamedTuple):
    """A way to read links from attention, and its error."""

    name: str
    error: AlignmentError


def alignment_study(
    alignments: Sequence[Alignment],
    pairs: Sequence[tuple[str, str]],
    gold: Sequence[Gold],
    *,
    norms: Sequence[Alignment] = (),
    corpus: Sequence[tuple[str, str]] = (),
) -> list[AlignmentRow]:
    """Alignment error of cross-attention: the mean of all, each layer, the best head; without and with a shift by one.

    The shift reads a word's links from the next step, whose input is the word (Chen et al. 2020, arXiv 2004.14837).

    Args:
        alignments: of each pair, as `look` gives: a word a row, an end mark last.
        pairs: source and target of each.
        gold: hand-made links of each.
        norms: alignments by the norms of weighted values, of the same pairs.
        corpus: more pairs on which IBM model 1 is trained.

    Returns:
        The mean of all heads, each layer's mean, the best head, the same by norms, and IBM model 1.

    Raises:
        DataError: other numbers of alignments and of hand-made ones, or words that are not those of the text.
        ConfigError: a model without cross-attention.
    """
    if not len(alignments) == len(pairs) == len(gold):
        raise DataError(f"{len(pairs)} pairs beside {len(gold)} alignments; expected one for each pair")
    for one, (source, target) in zip(alignments, pairs, strict=True):
        words = (len(source.split()) + 1, len(target.split()) + 1)
        if (len(one.source), len(one.target)) != words:
            raise DataError(f"{source!r:.60}: the model reads {len(one.source) - 1} words; expected {words[0] - 1}")
    rows = _attention_rows(alignments, gold, "")
    if norms:
        rows += _attention_rows(norms, gold, "value norm, ")
    split = [(source.split(), target.split()) for source, target in (*pairs, *corpus)]
    name = IBM if not corpus else f"IBM model 1, trained on {len(split):,} pairs"
    rows.append(AlignmentRow(name, alignment_error(ibm_model_1(split)[: len(pairs)], gold)))
    return rows


def _attention_rows(alignments: Sequence[Alignment], gold: Sequence[Gold], prefix: str) -> list[AlignmentRow]:
    """Errors of links from the maps of cross-attention."""
    layers = [torch.stack(list(one.layers("cross").values()))[..., :-1] for one in alignments]  # (layers, H, T, S)
    num_layers, num_heads = layers[0].shape[:2]
    rows: list[AlignmentRow] = []

    def add(name: str, choose: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for shift in (0, 1):
            links = [_links(choose(x), shift) for x in layers]
            label = f"{prefix}{name}, shifted" if shift else f"{prefix}{name}"
            rows.append(AlignmentRow(label, alignment_error(links, gold)))

    add("mean of all heads", lambda x: x.mean((0, 1)))
    for layer in range(num_layers):
        add(f"layer {layer + 1}", lambda x, layer=layer: x[layer].mean(0))
    heads = [(layer, head, shift) for layer in range(num_layers) for head in range(num_heads) for shift in (0, 1)]
    errors = {key: alignment_error([_links(x[key[0], key[1]], key[2]) for x in layers], gold) for key in heads}
    layer, head, shift = min(errors, key=lambda key: errors[key].aer)
    rows.append(
        AlignmentRow(
            f"{prefix}best head: layer {layer + 1}, head {head + 1}{', shifted' if shift else ''}",
            errors[layer, head, shift],
        )
    )
    return rows


def _links(weights: torch.Tensor, shift: int) -> Links:
    """Links of (T + 1, S) weights, whose last row is that of the end mark."""
    links = extract(weights, shift=shift)
    words = len(weights) - 1
    return frozenset(link for link in links if link[1] < words)


class HeadRow(NamedTuple):
    """What a head does, and what it is worth."""

    path: str
    head: int  # counted from 1
    importance: float  # by gradient, a share of the layer's largest
    ablation: float  # rise of the loss without it
    entropy_share: float
    sink_share: float
    dead: bool
    same_as: tuple[int, ...]  # heads of the layer whose maps are the same, counted from 1


def head_study(module: nn.Module, loss: Callable[[nn.Module], torch.Tensor]) -> list[HeadRow]:
    """Importance of every head, by gradient and by ablation; which are dead, which redundant.

    Args:
        module: the model; its mode and gradients are as before afterwards.
        loss: mean loss of the model on some records, of one call of each attention.

    Returns:
        One row a head, by attention in the order in which they ran.

    Raises:
        ConfigError: a model without attention.
    """
    module = in_evaluation(module)
    with torch.enable_grad(), record(module, gradients=True) as recording:
        value = loss(module)
    if not recording:
        raise ConfigError(f"{type(module).__name__} has no attention to study")
    value.backward()
    for parameter in module.parameters():
        parameter.grad = None
    rows: list[HeadRow] = []
    with torch.no_grad():
        whole = float(loss(module))
        for path, one in recording.items():
            _, heads, queries, keys = one.shape
            worth = importance(one.output, one.output_grad)
            causal = keys == queries and bool((one.grid.triu(1) == 0).all())
            visible = torch.arange(1, queries + 1) if causal else torch.full((queries,), keys)
            about = states(one.entropy.mean(0), one.key_mass.sum(0), visible)
            same = redundant(one.grid.mean(0))
            for head in range(heads):
                with ablated(module, {path: [head]}):
                    without = float(loss(module))
                others = tuple(b + 1 if a == head else a + 1 for a, b in same if head in (a, b))
                share = float(worth[head] / worth.max()) if float(worth.max()) else 0.0
                rows.append(
                    HeadRow(
                        path, head + 1, share, without - whole, about[head].entropy_share, about[head].sink_share,
                        about[head].dead, others,
                    )
                )  # fmt: skip
    return rows


def faithfulness_study(classifier: Any, texts: Iterable[str]) -> dict[str, Faithfulness]:
    """Mean faithfulness of attributions on the labels that a classifier gives to texts.

    Args:
        classifier: a runner with `probabilities`, `tokenizer` and `module`.
        texts: what it reads.

    Returns:
        By method, with random and uniform scores last.

    Raises:
        DataError: no text with two tokens or more besides special ones.
    """
    measured: list[Mapping[str, Faithfulness]] = []
    for text in texts:
        explained = explain(classifier, text)
        if len(explained.ids) - len(explained.special) < 2:
            continue
        measured.append(trust(explained, attributions(explained)))
    if not measured:
        raise DataError("no text has two tokens; give texts of several words")
    return {name: mean_of(one[name] for one in measured) for name in measured[0]}


def explain(classifier: Any, text: str) -> Explained:
    """The decision of a classifier on a text: its most probable label."""
    tokenizer = classifier.tokenizer
    ids = tokenizer.marked(tokenizer.encode(text), max_length=classifier.max_length)
    label = int(classifier.probabilities([text])[0].argmax())
    text_places = range(len(tokenizer.before), len(ids) - len(tokenizer.after))
    special = frozenset(i for i in range(len(ids)) if i not in text_places)
    return Explained(classifier.module, ids, label, special)
