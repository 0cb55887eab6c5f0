"""Defaults of training by architecture, and folders that were saved before them."""

import json
from pathlib import Path

import pytest

import regard as rg
from regard.checkpoints.folder import CONFIG, read, save
from regard.models.luong import Luong, LuongConfig
from regard.models.recipes import DEFAULT_RATE, learning_rate_of
from regard.models.registry import MODELS
from regard.models.rnn import RNN, RNNConfig
from tests.lens.models import tokenizer


def test_each_architecture_has_a_rate() -> None:
    assert learning_rate_of("luong") > learning_rate_of("transformer") == DEFAULT_RATE
    assert all(0 < learning_rate_of(name) < 0.1 for name in MODELS)


@pytest.mark.parametrize(("kind", "config"), [(RNN, RNNConfig), (Luong, LuongConfig)])
def test_folders_without_an_input_scale_keep_theirs(kind: type, config: type, tmp_path: Path) -> None:
    sizes = {"embed_dim": 8, "hidden_dim": 8}
    model = kind(config(vocabulary=rg.Vocabulary(size=tokenizer().size), **sizes))
    save(tmp_path, model, tokenizer(), {}, task="translate")
    assert read(tmp_path)[0].config.input_scale == 10
    path = tmp_path / CONFIG
    plain = json.loads(path.read_text())
    del plain["model"]["input_scale"]
    path.write_text(json.dumps(plain))
    assert read(tmp_path)[0].config.input_scale == 1
    assert read(tmp_path)[0].embeddings.scale == 1


def test_gates_are_initialized_one_by_one() -> None:
    """Xavier of gain 2 over a gate of (n, D): a bound of 2 sqrt(6 / (n + D))."""
    model = Luong(LuongConfig(vocabulary=rg.Vocabulary(size=20), embed_dim=16, hidden_dim=24, input_feeding=False))
    bound = 2 * (6 / (24 + 16)) ** 0.5
    largest = float(model.encoder.input_projs[0].weight.detach().abs().max())
    assert 0.95 * bound < largest <= bound
