"""A classifier's decision as a view: its attention, and what the decision hangs on, each beside its faithfulness."""

from collections.abc import Sequence

import torch

from regard.errors import ConfigError
from regard.layers.evaluation import in_evaluation
from regard.lens.attribute import RANDOM, Explained, attributions, predictor, trust
from regard.lens.faithfulness import Faithfulness
from regard.lens.record import record
from regard.lens.view import Attribution, Axis, View

TEXT, LABEL = "text", "label"
MEASURES = {"comprehensiveness": "comprehensiveness", "sufficiency": "sufficiency", "deletion": "deletion area"}


def explained_view(
    explained: Explained, tokens: Sequence[str], label: str, *, grid: int = 64, top: int = 8, title: str = ""
) -> View:
    """What a decision was made of.

    Args:
        explained: the decision, of one text.
        tokens: its tokens as text, one for each id.
        label: the name of the decided label.
        grid: bins on each side of a map, at most.
        top: largest weights that are kept of each token.
        title: of the view.

    Returns:
        The maps of all attentions, and attributions of the tokens by each method, with comprehensiveness, sufficiency
        and deletion area of each and of random scores.

    Raises:
        ConfigError: a model without attention.
    """
    explained, length = explained._replace(module=in_evaluation(explained.module)), len(explained.ids)
    with record(explained.module, grid=grid, top=top) as recording:
        predictor(explained)(torch.ones(1, length, dtype=torch.bool))
    if not recording:
        raise ConfigError(f"{type(explained.module).__name__} has no attention to look at")
    layers = [one.layer_view(TEXT if one.shape[2] == length else LABEL, TEXT) for one in recording.values()]
    axes = {
        TEXT: Axis(name=TEXT, labels=tokens, special=explained.special),
        LABEL: Axis(name=LABEL, labels=[label]),
    }
    scores = attributions(explained)
    measured = trust(explained, scores)
    of_random = {f"random {name}": value for name, value in _measures(measured[RANDOM]).items()}
    each = [
        Attribution(
            method=method, axis=TEXT, scores=x, target=label, trust={**_measures(measured[method]), **of_random}
        )
        for method, x in scores.items()
    ]
    return View(title=title, axes=axes, layers=layers, attributions=each)


def _measures(measured: Faithfulness) -> dict[str, float]:
    return {name: float(getattr(measured, field)) for field, name in MEASURES.items()}
