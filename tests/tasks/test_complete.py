"""A language model as one object: from a folder of its own, and from published ones."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import regard as rg
from regard.errors import CheckpointError
from regard.models.llama import Llama, LlamaConfig
from regard.models.llama_names import to_llama
from regard.models.seq2seq import Vocabulary
from regard.tasks.complete import TextGenerator
from regard.tasks.completion import prompts_of
from tests.checkpoints.language_models import byte_level, completer, gpt2_folder, own_completer
from tests.checkpoints.published import shard, write_hub

TEXTS = ["The library", "reads"]


@pytest.mark.parametrize("made", [completer, own_completer])
def test_saved_and_loaded(made, tmp_path: Path):
    one = made()
    one.config["note"] = "kept"
    one.save(tmp_path)
    again = rg.load(tmp_path)
    assert isinstance(again, TextGenerator)
    assert again.module.config == one.module.config
    assert again.config["note"] == "kept"
    assert again.complete(TEXTS) == one.complete(TEXTS)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_published_gpt2(sharded, tmp_path: Path):
    folder = gpt2_folder(tmp_path / "gpt2")
    if sharded:
        shard(folder)
    made = rg.load(folder)
    assert isinstance(made, TextGenerator)
    assert (made.tokenizer.eos, made.module.vocabulary.eos) == (0, 0)
    found = made.complete(TEXTS, max_new_tokens=9)
    made.save(tmp_path / "own")
    assert rg.load(tmp_path / "own").complete(TEXTS, max_new_tokens=9) == found


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_a_published_llama(family, tmp_path: Path):
    more = {"llama": {}, "mistral": {"windows": (3, 3)}, "qwen2": {"projection_bias": True, "windows": (None, 3)}}
    words = Vocabulary(size=byte_level().size + 5, pad=0, bos=0, eos=0)
    sizes = {"embed_dim": 16, "num_heads": 4, "num_kv_heads": 2, "ffn_dim": 24, "num_layers": 2, "max_length": 40}
    torch.manual_seed(0)
    model = Llama(LlamaConfig(vocabulary=words, **sizes, **more[family])).eval()
    fields, state = to_llama(model)
    assert fields["model_type"] == family
    folder = write_hub(tmp_path / family, fields, state)
    byte_level().save(folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    made = rg.load(folder)
    assert made.module.config == LlamaConfig(
        vocabulary=words, head_dim=4, **sizes, **more[family]
    )  # fmt: skip
    tokens = torch.tensor([[5, 6, 7]])
    assert torch.equal(made.module(tokens).logits, model(tokens).logits)
    found = made.complete(TEXTS, max_new_tokens=5)
    assert found == TextGenerator(model, byte_level()).complete(TEXTS, max_new_tokens=5)
    made.save(tmp_path / "own")
    assert rg.load(tmp_path / "own").complete(TEXTS, max_new_tokens=5) == found


def test_a_folder_without_a_tokenizer(tmp_path: Path):
    folder = gpt2_folder(tmp_path / "gpt2")
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    loaded = rg.load(folder)
    with pytest.raises(CheckpointError, match="no tokenizer"):
        loaded.complete(["a"])
    assert loaded.module(torch.tensor([[5, 6]])).logits.shape == (1, 2, byte_level().size)
    shutil.rmtree(folder)


@pytest.mark.parametrize("made", [completer, own_completer])
def test_see_is_what_the_layers_did(made):
    one = made()
    text = "The library reads"
    seen = one.see(text)
    [ids] = prompts_of(one.tokenizer, [text])
    assert seen.kinds == ["text"]
    assert seen.source == [word for word, _ in one.tokenizer.words(ids)]
    assert seen.source[-3:] == ["The", "library", "reads"]
    with torch.no_grad(), rg.record(one.module, weights=True) as recorded:
        one.module(torch.tensor([ids]))
    spans = [span for _, span in one.tokenizer.words(ids)]
    for path, weights in seen.weights.items():
        exact = recorded[path].weights[0]
        for row, rows in enumerate(spans):
            for column, columns in enumerate(spans):
                part = exact[:, rows.start : rows.stop, columns.start : columns.stop].sum(2).mean(1)
                torch.testing.assert_close(weights[:, row, column], part)
        assert not weights.triu(1).any()  # nothing after a word
