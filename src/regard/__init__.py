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
from regard.decode.constraints import Constraints
from regard.decode.generate import generate
from regard.decode.search import Beam, Greedy, Hypothesis, Sample
from regard.integrations.inference import accelerate, restore
from regard.integrations.sdpa import replace_sdpa
from regard.integrations.transformers import integrate_transformers
from regard.layers.attention_config import AttentionConfig
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
from regard.lens.alignment import Alignment
from regard.lens.record import record
from regard.lens.see import look
from regard.models.bert import Bert, BertConfig
from regard.models.convs2s import ConvS2S, ConvS2SConfig
from regard.models.gpt import GPT, GPTConfig
from regard.models.language_model import LanguageModel
from regard.models.llama import Llama, LlamaConfig
from regard.models.luong import Luong, LuongConfig
from regard.models.rnn import RNN, RNNConfig
from regard.models.seq2seq import Seq2Seq, Vocabulary
from regard.models.t5 import T5, T5Config
from regard.models.transformer import Transformer, TransformerConfig
from regard.train.options import TrainOptions
from regard.trained.completer import Completer
from regard.trained.encoder import Encoder
from regard.trained.export import export_hf
from regard.trained.export_onnx import export_onnx
from regard.trained.load import load
from regard.trained.translator import Translator

__all__ = [
    "ALiBi",
    "ALiBiSlopes",
    "Additive",
    "Alignment",
    "Around",
    "AttentionConfig",
    "AttentionSpec",
    "Beam",
    "Bert",
    "BertConfig",
    "Bilinear",
    "BlockSparse",
    "Causal",
    "Completer",
    "Constraints",
    "ConvS2S",
    "ConvS2SConfig",
    "Cosine",
    "Dilated",
    "Documents",
    "Dot",
    "Encoder",
    "Entmax",
    "Full",
    "GPT",
    "GPTConfig",
    "Gaussian",
    "GlobalTokens",
    "Greedy",
    "Hypothesis",
    "KeyLengths",
    "KeyValueCache",
    "LanguageModel",
    "LearnedAdditive",
    "LearnedBilinear",
    "LearnedCosine",
    "LearnedEntmax",
    "LearnedLocation",
    "LearnedPositions",
    "LearnedRelativeBias",
    "LearnedSigmoid",
    "LearnedSink",
    "Llama",
    "LlamaConfig",
    "Location",
    "Luong",
    "LuongConfig",
    "Mask",
    "MultiHeadAttention",
    "Plan",
    "PrefixLM",
    "RNN",
    "RNNConfig",
    "RandomBlocks",
    "RelativeBias",
    "Rotary",
    "Sample",
    "Seen",
    "Seq2Seq",
    "Sigmoid",
    "SinusoidalPositions",
    "SlidingWindow",
    "Softmax",
    "Sparsemax",
    "Strided",
    "Summary",
    "T5",
    "T5Config",
    "TensorBias",
    "TrainOptions",
    "Transformer",
    "TransformerConfig",
    "Translator",
    "Vocabulary",
    "accelerate",
    "attend",
    "export_hf",
    "export_onnx",
    "generate",
    "integrate_transformers",
    "load",
    "look",
    "plan",
    "record",
    "replace_sdpa",
    "restore",
    "shade",
]
