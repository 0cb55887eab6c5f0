"""What checkpoints say of generation, against `generate` of the transformers package: tokens and scores."""

import pytest
import torch

from regard.checkpoints.generation import generation_config
from regard.decode.generate import generate
from regard.models.marian import from_marian, to_marian
from regard.models.seq2seq import Vocabulary
from regard.models.transformer import Transformer, TransformerConfig

transformers = pytest.importorskip("transformers")

SIZE = 23  # few, so that targets end by themselves as well as at the greatest length
SIZES = {"embed_dim": 24, "num_heads": 3, "ffn_dim": 40, "encoder_layers": 2, "decoder_layers": 2}


@pytest.mark.parametrize("length_penalty", [0.6, 2.0])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("forced", [None, 2])
def test_beams_are_looked_for_as_the_checkpoint_says(length_penalty, early_stopping, forced):
    torch.manual_seed(0)
    made = TransformerConfig(vocabulary=Vocabulary(size=SIZE, never=(0, 5)), dropout=0.0, **SIZES)
    fields, state = to_marian(Transformer(made))
    says = {
        "num_beams": 3, "length_penalty": length_penalty, "early_stopping": early_stopping, "max_length": 9,
        "forced_eos_token_id": forced, "bad_words_ids": [[0], [5]],
    }  # fmt: skip
    state["final_logits_bias"][0, [2, 5]] = torch.tensor([1.5, 4.0])  # eos, and what never comes
    ours = from_marian({**fields, **says}, state)
    plain = {name: x for name, x in fields.items() if name not in says}
    theirs = transformers.MarianMTModel(transformers.MarianConfig(**plain, forced_eos_token_id=None)).eval()
    theirs.load_state_dict(state, strict=False)
    sources = [torch.randint(3, SIZE, (int(n),)).tolist() for n in torch.randint(1, 9, (40,))]
    padded = torch.zeros(len(sources), 10, dtype=torch.int64)
    for i, source in enumerate(sources):
        padded[i, : len(source) + 1] = torch.tensor([*source, 2])
    found = theirs.generate(
        input_ids=padded, attention_mask=(padded != 0).long(), do_sample=False, output_scores=True,
        return_dict_in_generate=True, **says,
    )  # fmt: skip
    wished = generation_config({**fields, **says})
    how = {"search": wished.search, "constraints": wished.constraints, "max_length": wished.limit(1)}
    mine = generate(ours, sources, **how)
    lengths = set()
    for row, (best, *_) in zip(found.sequences.tolist(), mine, strict=True):
        expected = row[1:] if 2 not in row[1:] else row[1 : row.index(2)]
        assert best.tokens == expected
        lengths.add(len(expected))
    assert len(lengths) > 1
    scores = torch.tensor([best.score for best, *_ in mine])
    torch.testing.assert_close(scores, found.sequences_scores, rtol=0, atol=1e-5)
    assert ours.vocabulary.never == (0, 5)
    assert to_marian(ours)[0]["bad_words_ids"] == [[0], [5]]
