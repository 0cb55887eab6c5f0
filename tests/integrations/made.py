"""Tiny random models of `transformers`, each twice: with an attention of the library's own, and with regard's."""

from typing import Any

import torch
from torch import Tensor, nn

import regard as rg

SIZE = 61  # of the vocabulary
SOURCE, TARGET = 11, 7
COMMON = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = {
    "vocab_size": SIZE, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
    "intermediate_size": 40, "head_dim": 10, **COMMON,
}  # fmt: skip
BERT = {
    "vocab_size": SIZE, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
    "hidden_dropout_prob": 0.0,
}  # fmt: skip
T5 = {
    "vocab_size": SIZE, "d_model": 24, "d_kv": 10, "num_heads": 3, "d_ff": 40, "num_layers": 2, "pad_token_id": 0,
    "eos_token_id": 1, "decoder_start_token_id": 0,
}  # fmt: skip
BART = {
    "vocab_size": SIZE, "d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 3,
    "decoder_attention_heads": 3, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "decoder_start_token_id": 1,
    "dropout": 0.0, **COMMON,
}  # fmt: skip
# The model's class, its configuration's, and its fields.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertModel", "BertConfig", BERT),
    "gpt2": (
        "GPT2LMHeadModel", "GPT2Config",
        {"vocab_size": SIZE, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 64, "resid_pdrop": 0.0,
         "embd_pdrop": 0.0, "scale_attn_by_inverse_layer_idx": True, **COMMON},
    ),
    "llama": ("LlamaForCausalLM", "LlamaConfig", LLAMA),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**LLAMA, "sliding_window": 4}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**LLAMA, "sliding_window": 4, "attn_logit_softcapping": 0.1}),
    "gpt-oss": (
        "GptOssForCausalLM", "GptOssConfig",
        {**LLAMA, "sliding_window": 4, "num_local_experts": 2, "num_experts_per_tok": 1},
    ),
    "modernbert": (
        "ModernBertModel", "ModernBertConfig",
        {**BERT, "num_hidden_layers": 3, "local_attention": 6, "cls_token_id": 1, "sep_token_id": 2, **COMMON},
    ),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5),
    "t5-gated": (
        "T5ForConditionalGeneration", "T5Config",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "marian": (
        "MarianMTModel", "MarianConfig",
        {**BART, "max_position_embeddings": 64, "forced_eos_token_id": None, "bad_words_ids": None},
    ),
    "whisper": (
        "WhisperForConditionalGeneration", "WhisperConfig",
        {**BART, "num_mel_bins": 5, "max_source_positions": SOURCE, "max_target_positions": 32,
         "suppress_tokens": None, "begin_suppress_tokens": None},
    ),
    "vit": (
        "ViTModel", "ViTConfig",
        {**{k: x for k, x in BERT.items() if k != "vocab_size"}, "image_size": 12, "patch_size": 4},
    ),
}  # fmt: skip
DECODERS = ("gpt2", "llama", "mistral", "gemma2", "gpt-oss")
BOTH = ("t5", "t5-gated", "marian")
# What these compute, the library's SDPA does not.
EAGER = ("gemma2", "gpt-oss")


def model(name: str, attention: str, dtype: torch.dtype = torch.float64, **changes: Any) -> nn.Module:
    """A model in evaluation; the same weights for any attention."""
    import transformers

    rg.integrate_transformers()
    kind, config, fields = MODELS[name]
    made = getattr(transformers, config)(**{**fields, **changes})
    torch.manual_seed(0)
    extra = {"experts_implementation": "eager"} if name == "gpt-oss" else {}  # the others take no float64
    built = getattr(transformers, kind)._from_config(made, attn_implementation=attention, **extra)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return built.to(dtype).eval()


def pair(name: str, dtype: torch.dtype = torch.float64, **changes: Any) -> tuple[nn.Module, nn.Module]:
    """The library's model, and ours."""
    theirs, ours = (model(name, a, dtype, **changes) for a in ("eager" if name in EAGER else "sdpa", "regard"))
    return theirs, ours


def padding(side: str) -> Tensor | None:
    """The mask of three sequences, two of them shorter; with "holes", tokens in between are hidden too."""
    if side == "none":
        return None
    mask = torch.ones(3, SOURCE, dtype=torch.int64)
    mask[1, 7:] = mask[2, 4:] = 0
    if side == "holes":
        mask[0, 3] = mask[1, 5] = 0
    return mask.flip(1) if side == "left" else mask


def inputs(name: str, mask: Tensor | None, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """What the model takes."""
    torch.manual_seed(1)
    tokens, target = torch.randint(3, SIZE, (3, SOURCE)), torch.randint(3, SIZE, (3, TARGET))
    if name == "vit":
        return {"pixel_values": torch.randn(3, 3, 12, 12, dtype=dtype)}
    if name == "whisper":
        return {"input_features": torch.randn(3, 5, 2 * SOURCE, dtype=dtype), "decoder_input_ids": target}
    given = {"input_ids": tokens, "attention_mask": mask}
    if name in BOTH:
        given["decoder_input_ids"] = target
    elif name in DECODERS and mask is not None:
        given["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    return given


def output(model: nn.Module, name: str, given: dict[str, Any]) -> Tensor:
    """Logits or hidden states, 0 at padding."""
    found = model(**given)
    y = found.logits if "logits" in found else found.last_hidden_state
    mask = given.get("attention_mask")
    if mask is None or name in BOTH:
        return y
    return torch.where(mask[..., None].bool(), y, 0)
