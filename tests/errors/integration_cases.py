"""Misuse of the integrations with other libraries: see `cases.py`."""

import sys
from types import SimpleNamespace
from unittest.mock import patch

import torch

from regard.attention.patterns.pattern import Causal
from regard.errors import UnsupportedError
from regard.integrations.lazy_mask import LazyMask
from regard.integrations.transformers import attention, integrate_transformers


def instead(library: object) -> object:
    """Integrate with something else under the library's name; with None, it is not installed."""
    with patch.dict(sys.modules, {"transformers": library}):
        return integrate_transformers()


def attend(mask: object = None, **others: object) -> object:
    return attention(None, *torch.ones(3, 1, 2, 3, 4), mask, **others)


def splinter() -> object:
    """Build a model whose attention regard's cannot replace."""
    import transformers

    integrate_transformers()
    config = transformers.SplinterConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    return transformers.SplinterModel._from_config(config, attn_implementation="regard")


CASES = [
    ("transformers-missing", lambda: instead(None), UnsupportedError, "install version 5 or later"),
    ("transformers-old", lambda: instead(SimpleNamespace(__version__="4.57.1")), UnsupportedError, "version 4.57.1"),
    (
        "transformers-unknown-argument",
        lambda: attend(block_indices=torch.ones(2, 3)),
        UnsupportedError,
        "block_indices=Tensor(torch.float32, (2, 3))",
    ),
    ("transformers-mask", lambda: attend(mask=[[1]]), UnsupportedError, "the mask is a list"),
    (
        "transformers-traced",
        lambda: torch.jit.trace(lambda x: attention(None, x, x, x, None)[0], torch.ones(1, 2, 3, 4)),
        UnsupportedError,
        "torch.jit.trace",
    ),
    (
        "transformers-model",
        splinter,
        UnsupportedError,
        'attn_implementation="regard": SplinterModel does not compute its attention through the interface',
    ),
    (
        "lazy-mask-written",
        lambda: LazyMask(Causal(), (1, 1, 2, 2), 0, 0, torch.device("cpu")).fill_(True),
        UnsupportedError,
        "LazyMask(Causal(), (1, 1, 2, 2))",
    ),
]
