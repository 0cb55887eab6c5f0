"""Attention models: one attention operator for every score, normalizer and pattern."""

from regard.attention.attend import attend, plan
from regard.attention.bias import ALiBi, RelativeBias, TensorBias
from regard.attention.block_pattern import BlockSparse, RandomBlocks
from regard.attention.cache import KeyValueCache
from regard.attention.draw import shade
from regard.attention.normalizer import Entmax, Sigmoid, Softmax, Sparsemax
from regard.attention.pattern import Causal, Dilated, Full, GlobalTokens, SlidingWindow, Strided
from regard.attention.plan import Plan
from regard.attention.prior import Gaussian
from regard.attention.score import Additive, Bilinear, Cosine, Dot, Location
from regard.attention.sequence_pattern import Around, Documents, KeyLengths, Mask, PrefixLM
from regard.attention.spec import AttentionSpec
from regard.attention.summary import Seen, Summary
from regard.layers.learned import (
    ALiBiSlopes,
    LearnedAdditive,
    LearnedBilinear,
    LearnedCosine,
    LearnedEntmax,
    LearnedLocation,
    LearnedRelativeBias,
    LearnedSigmoid,
    LearnedSink,
)
from regard.layers.multi_head_attention import MultiHeadAttention
from regard.layers.positions import LearnedPositions, Rotary, SinusoidalPositions

__all__ = [
    "ALiBi",
    "ALiBiSlopes",
    "Additive",
    "Around",
    "AttentionSpec",
    "Bilinear",
    "BlockSparse",
    "Causal",
    "Cosine",
    "Dilated",
    "Documents",
    "Dot",
    "Entmax",
    "Full",
    "Gaussian",
    "GlobalTokens",
    "KeyLengths",
    "KeyValueCache",
    "LearnedAdditive",
    "LearnedBilinear",
    "LearnedCosine",
    "LearnedEntmax",
    "LearnedLocation",
    "LearnedPositions",
    "LearnedRelativeBias",
    "LearnedSigmoid",
    "LearnedSink",
    "Location",
    "Mask",
    "MultiHeadAttention",
    "Plan",
    "PrefixLM",
    "RandomBlocks",
    "RelativeBias",
    "Rotary",
    "Seen",
    "Sigmoid",
    "SinusoidalPositions",
    "SlidingWindow",
    "Softmax",
    "Sparsemax",
    "Strided",
    "Summary",
    "TensorBias",
    "attend",
    "plan",
    "shade",
]
