"""Batched inference: texts of similar length run together, results come in the order of the texts."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


def batched(
    module: nn.Module,
    texts: Sequence[Sequence[int]],
    run: Callable[[Tensor, Tensor, list[int]], Sequence[Result]],
    *,
    batch_size: int,
    pad: int = 0,
) -> list[Result]:
    """Results of a model for each text, without gradients.

    Args:
        module: model in evaluation mode; see `in_evaluation`.
        texts: token ids of each text, at least one.
        run: function of a batch: tokens (B, L), lengths (B,) and the numbers of the texts; it returns a result for each
            row.
        batch_size: texts per batch.
        pad: token id of the padding.

    Returns:
        A result for each text.
    """
    order = sorted(
        range(len(texts)), key=lambda i: -len(texts[i])
    )  # the longest first: if memory runs out, then at once
    device = next(module.parameters()).device
    results: dict[int, Result] = {}
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            width = len(texts[chosen[0]])
            rows = [[*texts[i], *[pad] * (width - len(texts[i]))] for i in chosen]
            lengths = torch.tensor([len(texts[i]) for i in chosen], device=device)
            batch_results = run(torch.tensor(rows, device=device), lengths, chosen)
            results.update(zip(chosen, batch_results, strict=True))
    return [results[i] for i in range(len(texts))]
