"""Small language models with weights that matter, in every family and pattern."""

import torch

from regard.layers.rotary_scaling import Llama3Scaling
from regard.models.gpt import GPT, GPTConfig
from regard.models.language_model import LanguageModel
from regard.models.llama import Llama, LlamaConfig
from regard.models.seq2seq import Vocabulary

N = 37
WORDS = Vocabulary(size=N)
GPT_SIZES = {"embed_dim": 12, "num_heads": 3, "ffn_dim": 20, "num_layers": 3, "max_length": 97}
LLAMA_SIZES = {"embed_dim": 12, "num_heads": 6, "num_kv_heads": 2, "head_dim": 4, "ffn_dim": 20, "num_layers": 3}
VARIANTS = {
    "gpt": (GPT, GPTConfig(vocabulary=WORDS, **GPT_SIZES)),
    "gpt-banded": (GPT, GPTConfig(vocabulary=WORDS, band=5, scale_by_layer=True, **GPT_SIZES)),
    "llama": (Llama, LlamaConfig(vocabulary=WORDS, **LLAMA_SIZES)),
    "llama-scaled": (
        Llama,
        LlamaConfig(
            vocabulary=WORDS,
            rotary_scaling=Llama3Scaling(factor=8.0, low=1.0, high=4.0, length=16),
            rotary_base=100.0,
            projection_bias=True,
            tie_output=True,
            **LLAMA_SIZES,
        ),
    ),
    "mistral": (Llama, LlamaConfig(vocabulary=WORDS, windows=(4, 4, 4), **LLAMA_SIZES)),
    "mixed-windows": (Llama, LlamaConfig(vocabulary=WORDS, windows=(None, 7, 1), **LLAMA_SIZES)),
}


def made(variant: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    torch.manual_seed(0)
    kind, config = VARIANTS[variant]
    model: LanguageModel = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return model.to(dtype).eval()
