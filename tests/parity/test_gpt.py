"""GPT against the transformers package's GPT-2: hidden vectors, logits, gradients, decoded tokens, and names."""

import pytest
import torch

from regard.decode.generate import generate
from regard.decode.search import Beam, Greedy
from regard.models.gpt import from_gpt2, to_gpt2
from tests.parity.language_models import check_gradients, check_greedy, check_outputs, check_same, randomized

transformers = pytest.importorskip("transformers")

SIZES = {"vocab_size": 53, "n_positions": 31, "n_embd": 24, "n_layer": 3, "n_head": 4}
VARIANTS = {
    "plain": {},
    "inner": {"n_inner": 19, "layer_norm_epsilon": 1e-3},
    "no-scale": {"scale_attn_weights": False, "activation_function": "relu"},
    "scale-by-layer": {"scale_attn_by_inverse_layer_idx": True, "activation_function": "gelu"},
    "both-scales": {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True},
    "untied": {"tie_word_embeddings": False, "activation_function": "silu", "n_head": 1},
    "upcast": {"reorder_and_upcast_attn": True, "n_layer": 1, "activation_function": "gelu_pytorch_tanh"},
}


def theirs_of(dtype=torch.float64, **changes):
    """A random GPT-2 of theirs."""
    fields = {**SIZES, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **changes}
    attention = {"attn_implementation": "eager"} if dtype == torch.float32 else {}
    config = transformers.GPT2Config(**fields, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **attention)
    return randomized(transformers.GPT2LMHeadModel, config, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_and_gradients_are_theirs(variant, dtype):
    theirs = theirs_of(dtype, **VARIANTS[variant])
    ours = from_gpt2(theirs.config.to_dict(), theirs.state_dict())
    check_outputs(ours, theirs)
    check_gradients(ours, theirs, to_gpt2)


@pytest.mark.parametrize("variant", ["plain", "both-scales", "untied"])
def test_greedy_tokens_are_theirs(variant):
    theirs = theirs_of(torch.float32, **VARIANTS[variant])
    check_greedy(from_gpt2(theirs.config.to_dict(), theirs.state_dict()), theirs)


@pytest.mark.parametrize("ends", [2, [2, 17, 19, 40]])
def test_beam_tokens_and_scores_are_theirs(ends):
    theirs = theirs_of(torch.float32, eos_token_id=ends)
    ours = from_gpt2(theirs.config.to_dict(), theirs.state_dict())
    prompts = torch.randint(3, 53, (5, 4))
    found = theirs.generate(
        prompts, attention_mask=torch.ones_like(prompts), num_beams=3, do_sample=False, max_new_tokens=9,
        early_stopping=False, length_penalty=0.0, output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    mine = generate(ours, prompts.tolist(), search=Beam(3, length_penalty=0.0), max_length=9)
    for row, [best] in zip(found.sequences[:, 4:].tolist(), mine, strict=True):
        end = next((i for i, token in enumerate(row) if token in (ours.vocabulary.eos, *ours.vocabulary.more_eos)), 9)
        assert best.tokens == row[:end]
        assert best.finished == (end < 9)
    scores = torch.tensor([best.score for [best] in mine])
    torch.testing.assert_close(scores, found.sequences_scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_go_back(variant):
    theirs = theirs_of(torch.float32, **VARIANTS[variant])
    fields, state = to_gpt2(from_gpt2(theirs.config.to_dict(), theirs.state_dict()))
    check_same(transformers.GPT2LMHeadModel(transformers.GPT2Config(**fields)), state, theirs)


def test_names_of_old_files():
    """As openai-community/gpt2 stores them: no prefix, no output, and causal masks beside the weights."""
    theirs = theirs_of(torch.float32)
    state = {name.removeprefix("transformer."): x for name, x in theirs.state_dict().items() if "lm_head" not in name}
    state |= {f"h.{i}.attn.bias": torch.ones(1, 1, 31, 31).tril() for i in range(3)}
    ours = from_gpt2(theirs.config.to_dict(), state)
    tokens = torch.randint(0, 53, (2, 9))
    torch.testing.assert_close(ours(tokens).logits, theirs(tokens).logits, rtol=1e-5, atol=1e-5)


def test_several_tokens_may_end_a_text():
    theirs = theirs_of(torch.float32)
    ours = from_gpt2(theirs.config.to_dict(), theirs.state_dict())
    [[one]] = generate(ours, [[5, 6, 7, 8]], search=Greedy(), max_length=9)
    *_, last = dict.fromkeys(one.tokens)  # a token that is written, after others
    theirs = theirs_of(torch.float32, eos_token_id=[2, last])
    ours = from_gpt2(theirs.config.to_dict(), theirs.state_dict())
    assert (ours.vocabulary.eos, ours.vocabulary.more_eos) == (2, (last,))
    [[ended]] = generate(ours, [[5, 6, 7, 8]], search=Greedy(), max_length=9)
    assert ended.finished
    assert ended.tokens == one.tokens[: one.tokens.index(last)]
    check_greedy(ours, theirs)
