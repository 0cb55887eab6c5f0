"""Attention models: one attention operator for every score, normalizer and pattern.

A public name is imported when it is first used, so that the command line answers without torch, which takes seconds to
import.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers and editors
    from regard.attention.attend import attend, plan
    from regard.attention.bias import ALiBi, RelativeBias, TensorBias
    from regard.attention.cache import KeyValueCache
    from regard.attention.engine.draw import shade
    from regard.attention.hard import Gumbel, Hard, Reinforce, StraightThrough
    from regard.attention.location_aware import LocationAware
    from regard.attention.normalizer import Entmax, NormalizedSigmoid, Sigmoid, Softmax, Sparsemax
    from regard.attention.patterns.block_pattern import BlockSparse, RandomBlocks
    from regard.attention.patterns.pattern import Causal, Dilated, Full, GlobalTokens, SlidingWindow, Strided
    from regard.attention.patterns.sequence_pattern import Around, Documents, KeyLengths, Mask, PrefixLM
    from regard.attention.plan import Plan
    from regard.attention.prior import Gaussian
    from regard.attention.score import Additive, Bilinear, Cosine, Dot, Location
    from regard.attention.spec import AttentionSpec
    from regard.attention.summary import Summary, SummaryResult
    from regard.checkpoints.export import export_hf
    from regard.checkpoints.export_onnx import export_onnx
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
    from regard.tasks.complete import TextGenerator
    from regard.tasks.encode import Encoder
    from regard.tasks.load import load
    from regard.tasks.registry import register_task
    from regard.tasks.task import Task
    from regard.tasks.translate import Translator
    from regard.train import train
    from regard.train.options import TrainOptions

    __version__: str

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
    "Gumbel",
    "Hard",
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
    "LocationAware",
    "Luong",
    "LuongConfig",
    "Mask",
    "MultiHeadAttention",
    "NormalizedSigmoid",
    "Plan",
    "PrefixLM",
    "RNN",
    "RNNConfig",
    "RandomBlocks",
    "Reinforce",
    "RelativeBias",
    "Rotary",
    "Sample",
    "Seq2Seq",
    "Sigmoid",
    "SinusoidalPositions",
    "SlidingWindow",
    "Softmax",
    "Sparsemax",
    "StraightThrough",
    "Strided",
    "Summary",
    "SummaryResult",
    "T5",
    "T5Config",
    "Task",
    "TensorBias",
    "TextGenerator",
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
    "register_task",
    "replace_sdpa",
    "restore",
    "shade",
    "train",
]

# The public names by the module that defines them, below `regard`.
_NAMES = {
    "attention.attend": ("attend", "plan"),
    "attention.bias": ("ALiBi", "RelativeBias", "TensorBias"),
    "attention.patterns.block_pattern": ("BlockSparse", "RandomBlocks"),
    "attention.cache": ("KeyValueCache",),
    "attention.engine.draw": ("shade",),
    "attention.hard": ("Gumbel", "Hard", "Reinforce", "StraightThrough"),
    "attention.location_aware": ("LocationAware",),
    "attention.normalizer": ("Entmax", "NormalizedSigmoid", "Sigmoid", "Softmax", "Sparsemax"),
    "attention.patterns.pattern": ("Causal", "Dilated", "Full", "GlobalTokens", "SlidingWindow", "Strided"),
    "attention.plan": ("Plan",),
    "attention.prior": ("Gaussian",),
    "attention.score": ("Additive", "Bilinear", "Cosine", "Dot", "Location"),
    "attention.patterns.sequence_pattern": ("Around", "Documents", "KeyLengths", "Mask", "PrefixLM"),
    "attention.spec": ("AttentionSpec",),
    "attention.summary": ("Summary", "SummaryResult"),
    "checkpoints.export": ("export_hf",),
    "checkpoints.export_onnx": ("export_onnx",),
    "decode.constraints": ("Constraints",),
    "decode.generate": ("generate",),
    "decode.search": ("Beam", "Greedy", "Hypothesis", "Sample"),
    "integrations.inference": ("accelerate", "restore"),
    "integrations.sdpa": ("replace_sdpa",),
    "integrations.transformers": ("integrate_transformers",),
    "layers.attention_config": ("AttentionConfig",),
    "layers.learned": (
        "ALiBiSlopes",
        "LearnedAdditive",
        "LearnedBilinear",
        "LearnedCosine",
        "LearnedEntmax",
        "LearnedLocation",
        "LearnedRelativeBias",
        "LearnedSigmoid",
        "LearnedSink",
    ),
    "layers.multi_head_attention": ("MultiHeadAttention",),
    "layers.positions": ("LearnedPositions", "Rotary", "SinusoidalPositions"),
    "lens.alignment": ("Alignment",),
    "lens.record": ("record",),
    "lens.see": ("look",),
    "models.bert": ("Bert", "BertConfig"),
    "models.convs2s": ("ConvS2S", "ConvS2SConfig"),
    "models.gpt": ("GPT", "GPTConfig"),
    "models.language_model": ("LanguageModel",),
    "models.llama": ("Llama", "LlamaConfig"),
    "models.luong": ("Luong", "LuongConfig"),
    "models.rnn": ("RNN", "RNNConfig"),
    "models.seq2seq": ("Seq2Seq", "Vocabulary"),
    "models.t5": ("T5", "T5Config"),
    "models.transformer": ("Transformer", "TransformerConfig"),
    "tasks.complete": ("TextGenerator",),
    "tasks.encode": ("Encoder",),
    "tasks.load": ("load",),
    "tasks.registry": ("register_task",),
    "tasks.task": ("Task",),
    "tasks.translate": ("Translator",),
    "train": ("train",),
    "train.options": ("TrainOptions",),
}
_HOMES = {name: f"regard.{module}" for module, names in _NAMES.items() for name in names}
_RENAMED = {"Seen": "SummaryResult"}  # old public names, kept for one release

if not TYPE_CHECKING:  # a type checker that sees this function would accept any name

    def __getattr__(name: str) -> object:
        """A public name, a part of the package such as `regard.lens` or `regard.train`, or the version (PEP 562)."""
        import importlib.metadata
        import importlib.util

        if name in _RENAMED:
            import warnings

            warnings.warn(f"rg.{name} is now rg.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
            name = _RENAMED[name]
        if name in _HOMES and _HOMES[name] != f"regard.{name}":  # `train` is a package that is called
            value = getattr(importlib.import_module(_HOMES[name]), name)
        elif name == "__version__":
            value = importlib.metadata.version("regard")
        elif not name.startswith("_") and importlib.util.find_spec(f"regard.{name}") is not None:
            value = importlib.import_module(f"regard.{name}")
        else:
            raise AttributeError(
                f"module 'regard' has no attribute {name!r}", name=name, obj=importlib.import_module("regard")
            )
        globals()[name] = value  # later accesses do not call this function
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
