"""Models by name, and configurations through plain data and back."""

import json
from typing import Any

import pytest

import regard as rg
from regard.errors import ConfigError
from regard.layers.attention_config import AttentionConfig
from regard.models.registry import MODELS, build, config_from_plain, config_to_plain, name_of
from regard.models.seq2seq import Seq2Seq, Vocabulary
from regard.tasks.text_to_text import TextToText

VOCABULARY = Vocabulary(size=23, pad=3, bos=4, eos=5)
OTHERS: dict[str, dict[str, Any]] = {
    "transformer": {"embed_dim": 8, "num_heads": 2, "ffn_dim": 8, "norm": "pre", "dropout": 0.25},
    "rnn": {"embed_dim": 8, "hidden_dim": 6, "align_dim": 5, "tie_output": False},
    "luong": {"embed_dim": 8, "hidden_dim": 6, "score": "concat", "window": "local-m", "input_feeding": False},
    "convs2s": {"embed_dim": 8, "hidden_dim": 6, "kernel": 5, "share_embeddings": False, "dropout": 0.0},
}
ATTENTION = AttentionConfig(
    score=rg.LearnedAdditive("relu"), normalizer=rg.Entmax(1.5), pattern=rg.SlidingWindow(left=3, right=1)
)


@pytest.mark.parametrize("name", TextToText.models)
@pytest.mark.parametrize("attention", [AttentionConfig(), ATTENTION], ids=["plain", "other"])
def test_a_configuration_comes_back(name: str, attention: AttentionConfig) -> None:
    config = MODELS[name][0](vocabulary=VOCABULARY, attention=attention, **OTHERS[name])
    plain = config_to_plain(config)
    text = json.dumps(plain)
    assert json.loads(text) == plain
    assert config_from_plain(name, json.loads(text)) == config
    assert plain["vocabulary"] == {"size": 23, "pad": 3, "bos": 4, "eos": 5}


@pytest.mark.parametrize("name", TextToText.models)
def test_a_name_leads_to_its_model_and_back(name: str) -> None:
    config = config_from_plain(name, {"vocabulary": VOCABULARY, **OTHERS[name]})
    model = build(config)
    assert name_of(config) == name
    assert type(model) is MODELS[name][1]
    assert isinstance(model, Seq2Seq)
    assert (model.config, model.vocabulary) == (config, VOCABULARY)


@pytest.mark.parametrize("name", TextToText.models)
def test_fields_left_out_have_their_defaults(name: str) -> None:
    assert config_from_plain(name, {"vocabulary": {"size": 23}}) == MODELS[name][0](vocabulary=Vocabulary(size=23))


@pytest.mark.parametrize("name", TextToText.models)
def test_an_unknown_setting_names_the_nearest(name: str) -> None:
    with pytest.raises(ConfigError, match="'dropuot'; did you mean 'dropout'"):
        config_from_plain(name, {"vocabulary": {"size": 23}, "dropuot": 0.1})


@pytest.mark.parametrize(
    ("name", "fields", "former"),
    [
        ("transformer", {"ffn_dim": 48, "num_heads": 2}, {"hidden_dim": 48, "num_heads": 2}),
        ("luong", {"num_layers": 3, "hidden_dim": 6}, {"layers": 3, "hidden_dim": 6}),
    ],
)
def test_former_names_of_fields_are_read(name: str, fields: dict[str, int], former: dict[str, int]) -> None:
    config = config_from_plain(name, {"vocabulary": VOCABULARY, **former})
    assert config == MODELS[name][0](vocabulary=VOCABULARY, **fields)


def test_a_field_by_its_present_name_is_not_renamed() -> None:
    assert config_from_plain("rnn", {"vocabulary": VOCABULARY, "hidden_dim": 6}).hidden_dim == 6
