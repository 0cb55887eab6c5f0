"""Which tokens a classifier's decision hangs on, by several methods, and how far each can be trusted."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regard.errors import ConfigError
from regard.layers.evaluation import in_evaluation
from regard.lens.attention_record import AttentionRecord
from regard.lens.faithfulness import Faithfulness, Predict, faithfulness, leave_one_out, random_scores
from regard.lens.integrated_gradients import integrated_gradients
from regard.lens.record import record
from regard.lens.relevance import Attended, relevance, weight_gradient, weighted_gradient
from regard.lens.rollout import rollout
from regard.lens.value_norm import value_norms

STEPS = 16  # of integrated gradients
SEEDS = (0, 1, 2)  # of random scores
BATCH = 32  # reduced inputs that run together
RANDOM, UNIFORM = "random", "uniform"


class Explained(NamedTuple):
    """A decision to explain."""

    module: nn.Module  # `module(ids, lengths).logits`, or that of the transformers package with an attention mask
    ids: Sequence[int]
    label: int
    special: frozenset[int] = frozenset()  # places of tokens that always stay


def attributions(explained: Explained) -> dict[str, Tensor]:
    """Scores of the tokens of a text for one label, by method; special tokens have 0.

    Attention and value norms are those of the last attention: of a pooling, or the first token's row. Rollout and
    attention times gradient go through all layers of self-attention before it.

    Args:
        explained: the decision.

    Returns:
        (L,) by the name of the method: "attention", "value norm", "rollout", "attention x gradient",
        "integrated gradients" and "leave one out".

    Raises:
        ConfigError: a model without attention, or without an embedding of tokens.
    """
    module = in_evaluation(explained.module)
    with torch.enable_grad(), record(module, weights=True, values=True, gradients=True) as recording:
        probability = _probability(module, explained.ids, explained.label)
    if not recording:
        raise ConfigError(f"{type(module).__name__} has no attention to explain by")
    probability.backward()
    for parameter in module.parameters():
        parameter.grad = None
    scores = _of_attention(recording)
    scores["integrated gradients"] = _integrated(module, explained)
    scores["leave one out"] = leave_one_out(predictor(explained), len(explained.ids))
    keep = torch.ones(len(explained.ids))
    keep[sorted(explained.special)] = 0
    return {name: x.detach().float() * keep for name, x in scores.items()}


def predictor(explained: Explained) -> Predict:
    """The probability of the label where only some tokens are kept; special ones always are."""
    module = in_evaluation(explained.module)
    ids = torch.tensor(list(explained.ids))
    always = torch.zeros(len(ids), dtype=torch.bool)
    always[sorted(explained.special)] = True

    @torch.no_grad()
    def predict(kept: Tensor) -> Tensor:
        kept = kept | always
        kept[~kept.any(1), 0] = True  # a text has a token at least
        parts = []
        for some in kept.split(BATCH):
            rows = [ids[row] for row in some]
            lengths = torch.tensor([len(row) for row in rows])
            padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
            parts.append(_probabilities(module, padded, lengths)[:, explained.label])
        return torch.cat(parts)

    return predict


def trust(explained: Explained, scores: Mapping[str, Tensor]) -> dict[str, Faithfulness]:
    """Faithfulness of attributions, beside that of random scores (mean of three seeds) and of uniform ones.

    Args:
        explained: the decision.
        scores: (L,) by method.

    Returns:
        By method, the two baselines last.
    """
    predict, length = predictor(explained), len(explained.ids)
    measured = {name: faithfulness(predict, x) for name, x in scores.items()}
    drawn = [faithfulness(predict, random_scores(length, seed=seed)) for seed in SEEDS]
    measured[RANDOM] = mean_of(drawn)
    measured[UNIFORM] = faithfulness(predict, torch.zeros(length))
    return measured


def mean_of(measured: Iterable[Faithfulness]) -> Faithfulness:
    """The mean of measures."""
    several = list(measured)
    means = {
        name: sum(getattr(one, name) for one in several) / len(several)
        for name in ("comprehensiveness", "sufficiency", "deletion")
    }
    return Faithfulness(**means)


def _of_attention(recording: Mapping[str, AttentionRecord]) -> dict[str, Tensor]:
    """The scores that attention alone gives."""
    records = list(recording.values())
    last = records[-1]
    pools = last.shape[2] == 1
    layers = [one for one in (records[:-1] if pools else records) if one.shape[2] == one.shape[3] == last.shape[3]]
    row = last.weights.mean(1)[:, 0]  # (1, S)
    norms = value_norms(last.weights, _value(last)).mean(1)[:, 0]
    rolled = rollout([one.weights for one in layers]) if layers else None
    attended = [_attended(one) for one in layers]
    related = relevance(attended) if attended else None
    if pools:
        pooled = weighted_gradient(_attended(last))[:, 0]  # (1, S)
        gradient = pooled if related is None else (pooled[:, None] @ related)[:, 0]
        through = row if rolled is None else (row[:, None] @ rolled)[:, 0]
    elif rolled is None or related is None:
        raise ConfigError("attributions: no self-attention over the tokens was recorded")
    else:
        through, gradient = rolled[:, 0], related[:, 0]
    return {"attention": row[0], "value norm": norms[0], "rollout": through[0], "attention x gradient": gradient[0]}


def _attended(one: AttentionRecord) -> Attended:
    return Attended(one.weights, weight_gradient(one.output_grad, _value(one)))


def _value(one: AttentionRecord) -> Tensor:
    if one.value is None:
        raise ConfigError(f"attributions: the values of {one.path!r} are not known")
    return one.value


def _integrated(module: nn.Module, explained: Explained) -> Tensor:
    """Integrated gradients on the embeddings of tokens, from a text of padding."""
    embedding = _embedding(module)
    ids = torch.tensor([list(explained.ids)])
    inputs = embedding(ids)[0].detach()
    baseline = torch.zeros_like(inputs)

    def function(points: Tensor) -> Tensor:
        with _embedded(embedding, points):
            tokens = ids.expand(len(points), -1)
            return _probabilities(module, tokens, torch.full((len(points),), ids.shape[1]))[:, explained.label]

    return integrated_gradients(function, inputs, baseline, steps=STEPS)


@contextmanager
def _embedded(embedding: nn.Module, points: Tensor) -> Any:
    """An embedding gives these vectors (B, L, D) inside the block."""
    handle = embedding.register_forward_hook(lambda module, args, output: points)
    try:
        yield
    finally:
        handle.remove()


def _embedding(module: nn.Module) -> nn.Embedding:
    """The embedding of tokens: the largest one."""
    several = [part for part in module.modules() if isinstance(part, nn.Embedding)]
    if not several:
        raise ConfigError(f"{type(module).__name__} has no nn.Embedding of tokens, which integrated gradients need")
    return max(several, key=lambda part: part.num_embeddings)


def _probability(module: nn.Module, ids: Sequence[int], label: int) -> Tensor:
    tokens = torch.tensor([list(ids)])
    return _probabilities(module, tokens, torch.tensor([len(ids)]))[0, label]


def _probabilities(module: nn.Module, tokens: Tensor, lengths: Tensor) -> Tensor:
    """The probability of each label: of their own where a text may have several."""
    logits = _logits(module, tokens, lengths).float()
    return logits.sigmoid() if getattr(module.config, "multi_label", False) else logits.softmax(-1)


def _logits(module: nn.Module, tokens: Tensor, lengths: Tensor) -> Tensor:
    """The logits of regard's classifiers, and of those of the transformers package."""
    if type(module).__module__.startswith("regard."):
        logits: Tensor = module(tokens, lengths).logits
        return logits
    mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
    return module(input_ids=tokens, attention_mask=mask).logits  # type: ignore[no-any-return]
