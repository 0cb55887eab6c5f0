"""Bag of words: logistic regression on words and word bigrams, as a baseline for classifiers.

Words and bigrams are hashed to a fixed number of features, so that no vocabulary is stored; the features of a text are
their inverse document frequencies, scaled to length 1.
"""

import itertools
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import final

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

FEATURES = 1 << 16  # number of hashed words and bigrams
WORD = re.compile(r"\w+")
DECAY = 1e-5  # weight of the squared norm of the coefficients
STEPS = 60  # maximum iterations of L-BFGS


def hashed_words(text: str) -> list[int]:
    """Features of a text: an index below `FEATURES` for each of its distinct words and bigrams."""
    words = [word.casefold() for word in WORD.findall(text)]
    pairs = [f"{left} {right}" for left, right in itertools.pairwise(words)]
    return sorted({zlib.crc32(term.encode()) % FEATURES for term in (*words, *pairs)})


@final
class BagOfWords:
    """Logistic regression on hashed words.

    Args:
        weight: (labels, FEATURES).
        bias: (labels,).
        frequency: (FEATURES,), inverse document frequency of each feature.
        multi_label: whether each label is decided independently.
    """

    def __init__(self, weight: Tensor, bias: Tensor, frequency: Tensor, *, multi_label: bool) -> None:
        self.weight, self.bias, self.frequency, self.multi_label = weight, bias, frequency, multi_label

    @staticmethod
    def fit(rows: Sequence[Sequence[int]], targets: Tensor, *, multi_label: bool) -> "BagOfWords":
        """Fit a regression by L-BFGS.

        Args:
            rows: features of each text, from `hashed_words`.
            targets: (rows, labels), 1 for a label that a text has, else 0.
            multi_label: whether a text may have any number of labels.

        Returns:
            The regression, fitted from coefficients of 0.
        """
        counts = torch.bincount(torch.tensor([i for row in rows for i in row], dtype=torch.int64), minlength=FEATURES)
        frequency = torch.log((1 + len(rows)) / (1 + counts.float())) + 1
        weight = torch.zeros(FEATURES, targets.shape[1], requires_grad=True)
        bias = torch.zeros(targets.shape[1], requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")
        labels = targets.float()

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = _logits(rows, frequency, weight, bias)
            if multi_label:
                value = functional.binary_cross_entropy_with_logits(logits, labels)
            else:
                value = functional.cross_entropy(logits, labels)
            value = value + DECAY * weight.square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        return BagOfWords(weight.detach().t().contiguous(), bias.detach(), frequency, multi_label=multi_label)

    def probabilities(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Probability of each label: (rows, labels)."""
        logits = _logits(rows, self.frequency, self.weight.t(), self.bias)
        return logits.sigmoid() if self.multi_label else logits.softmax(-1)

    def to_bytes(self) -> bytes:
        """Coefficients in the safetensors format."""
        tensors = {"weight": self.weight.half(), "bias": self.bias, "frequency": self.frequency}
        return bytes(safetensors.torch.save({name: x.contiguous() for name, x in tensors.items()}))

    @staticmethod
    def load(path: Path, *, multi_label: bool) -> "BagOfWords":
        """Read the coefficients that `to_bytes` wrote."""
        tensors = {name: x.float() for name, x in safetensors.torch.load_file(path).items()}
        return BagOfWords(**tensors, multi_label=multi_label)


def _logits(rows: Sequence[Sequence[int]], frequency: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits (rows, labels) of rows of features, each scaled to length 1, by a weight (FEATURES, labels)."""
    counts = torch.tensor([len(row) for row in rows])
    features = torch.tensor([i for row in rows for i in row], dtype=torch.int64)
    owner = torch.repeat_interleave(torch.arange(len(rows)), counts)
    values = frequency[features]
    norms = torch.zeros(len(rows)).index_add_(0, owner, values.square()).sqrt()
    starts = counts.cumsum(0) - counts
    return (
        functional.embedding_bag(features, weight, starts, mode="sum", per_sample_weights=values / norms[owner]) + bias
    )
