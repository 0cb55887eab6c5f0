"""Constraints and searches against `generate` of the transformers package: tokens, and scores where it has some."""

import functools

import pytest
import torch

from regard.decode.constraints import Constraints
from regard.decode.generate import generate
from regard.decode.search import Beam, Greedy
from regard.models.gpt import from_gpt2
from regard.models.marian import from_marian, to_marian
from regard.models.seq2seq import Vocabulary
from regard.models.transformer import Transformer, TransformerConfig
from tests.parity.language_models import randomized

transformers = pytest.importorskip("transformers")

SIZE = 23  # few tokens, so that they repeat
# What the package's fields say, and the same as constraints.
RULES = {
    "min_length": ({"min_length": 6}, {"min_length": 6}),
    "min_new_tokens": ({"min_new_tokens": 4}, {"min_new_tokens": 4}),
    "repetition_penalty": ({"repetition_penalty": 1.6}, {"repetition_penalty": 1.6}),
    "repetition_rewarded": ({"repetition_penalty": 0.7}, {"repetition_penalty": 0.7}),
    "no_repeat_ngram_size": ({"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 2}),
    "no_repeat_tokens": ({"no_repeat_ngram_size": 1}, {"no_repeat_ngram_size": 1}),
    "bad_words": (
        {"bad_words_ids": [[7], [9, 4], [11, 11, 3], [2]]},  # an end mark alone is let be
        {"bad_words": ((7,), (9, 4), (11, 11, 3), (2,))},
    ),
    "begin_suppress_tokens": (
        {"begin_suppress_tokens": list(range(4, 15))}, {"begin_suppress_tokens": tuple(range(4, 15))},
    ),
    "forced_bos": ({"forced_bos_token_id": 8}, {"forced_bos": 8}),
    "forced_bos_then": (
        {"forced_bos_token_id": 8, "begin_suppress_tokens": list(range(9, 20))},
        {"forced_bos": 8, "begin_suppress_tokens": tuple(range(9, 20))},
    ),
    "forced_eos": ({"forced_eos_token_id": 2}, {"forced_eos": 2}),
    "renormalize": (
        {"renormalize_logits": True, "bad_words_ids": [[7], [8], [9, 4]], "min_new_tokens": 3},
        {"renormalize": True, "bad_words": ((7,), (8,), (9, 4)), "min_new_tokens": 3},
    ),
    "all": (
        {
            "renormalize_logits": True, "bad_words_ids": [[7]], "min_new_tokens": 3, "repetition_penalty": 1.3,
            "no_repeat_ngram_size": 2, "forced_eos_token_id": 2, "begin_suppress_tokens": [5],
        },
        {
            "renormalize": True, "bad_words": ((7,),), "min_new_tokens": 3, "repetition_penalty": 1.3,
            "no_repeat_ngram_size": 2, "forced_eos": 2, "begin_suppress_tokens": (5,),
        },
    ),
}  # fmt: skip
SEARCHES = {
    "greedy": (Greedy(), {"num_beams": 1}),
    "beam": (Beam(3), {"num_beams": 3}),
    "early": (Beam(3, length_penalty=0.4, early_stopping=True), {
        "num_beams": 3, "length_penalty": 0.4, "early_stopping": True,
    }),
    "never": (Beam(3, length_penalty=1.5, early_stopping="never"), {
        "num_beams": 3, "length_penalty": 1.5, "early_stopping": "never",
    }),
}  # fmt: skip


@functools.cache
def seq2seq(ends):
    """A random Marian of theirs and the same of ours."""
    sizes = {"embed_dim": 24, "num_heads": 3, "ffn_dim": 40, "encoder_layers": 2, "decoder_layers": 2}
    torch.manual_seed(0)
    made = Transformer(TransformerConfig(vocabulary=Vocabulary(size=SIZE), dropout=0.0, **sizes))
    for parameter in made.parameters():
        parameter.data += 0.25 * torch.randn_like(parameter)
    fields, state = to_marian(made)
    state["final_logits_bias"][0, [2, 6, 19]] = torch.tensor([0.5, -1.0, -1.0])  # targets end, at times
    theirs = transformers.MarianMTModel(transformers.MarianConfig(**fields | {"forced_eos_token_id": None})).eval()
    theirs.load_state_dict(state, strict=False)
    theirs.generation_config.update(eos_token_id=list(ends), forced_eos_token_id=None, bad_words_ids=None)
    return theirs, from_marian({**fields, "eos_token_id": list(ends)}, state)


@functools.cache
def language_model(ends):
    """A random GPT-2 of theirs and the same of ours."""
    fields = {"vocab_size": SIZE, "n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 3, "pad_token_id": 0}
    config = transformers.GPT2Config(**fields, bos_token_id=1, eos_token_id=list(ends))
    theirs = randomized(transformers.GPT2LMHeadModel, config, torch.float32)
    return theirs, from_gpt2(theirs.config.to_dict(), theirs.state_dict())


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("rule", ["none", *RULES])
@pytest.mark.parametrize("make", [seq2seq, language_model])
def test_tokens_and_scores_are_theirs(make, rule, search):
    (said, constraints), (mine, their_search) = RULES.get(rule, ({}, {})), SEARCHES[search]
    ends = (2,) if search == "early" else (2, 6, 19)
    theirs, ours = make(ends)
    torch.manual_seed(1)
    lengths = [1, *torch.randint(1, 9, (7,)).tolist()]
    sources = [torch.randint(3, SIZE, (length,)).tolist() for length in lengths]
    found = generate(ours, sources, search=mine, constraints=Constraints(**constraints), max_length=9)
    written = set()
    for source, [one, *_] in zip(sources, found, strict=True):
        given = torch.tensor([[*source, 2] if make is seq2seq else source])
        with torch.no_grad():
            expected = theirs.generate(
                given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=9, output_scores=True,
                return_dict_in_generate=True, **said, **their_search,
            )  # fmt: skip
        new = expected.sequences[0, 1 if make is seq2seq else len(source) :].tolist()
        end = next((i for i, token in enumerate(new) if token in ends), len(new))
        assert (one.tokens, one.finished) == (new[:end], end < len(new))
        if search != "greedy":
            assert one.score == pytest.approx(float(expected.sequences_scores[0]), abs=1e-5)
        written.add(tuple(one.tokens))
    assert len(written) > 1 or rule in ("begin_suppress_tokens", "forced_bos_then")
