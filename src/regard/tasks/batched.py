"""Texts through a model in batches of like length; what comes out stands in the order of the texts."""

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
    """What a model gives for each text, without gradients.

    Args:
        module: in evaluation mode; see `in_evaluation`.
        texts: token ids of each, at least one.
        run: gives a result for each row of tokens (B, L), whose lengths are (B,), and which are the texts of these
            numbers.
        batch_size: texts that run together.
        pad: what fills the places after the end of a text.

    Returns:
        A result for each text.
    """
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))  # the longest first: memory is short at once or not
    device = next(module.parameters()).device
    results: dict[int, Result] = {}
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            longest = len(texts[chosen[0]])
            rows = [[*texts[i], *[pad] * (longest - len(texts[i]))] for i in chosen]
            lengths = torch.tensor([len(texts[i]) for i in chosen], device=device)
            found = run(torch.tensor(rows, device=device), lengths, chosen)
            results.update(zip(chosen, found, strict=True))
    return [results[i] for i in range(len(texts))]
