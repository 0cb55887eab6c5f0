"""No model type of `transformers` gets other numbers from regard's attention without a warning."""

import re

import pytest
import torch

import regard as rg
from regard.errors import UnsupportedError
from tests.integrations.sweep import ALLOWED, PAGE, Verdict, difference, page, verdict
from tests.integrations.tiny import build, masked, model_types, run, tiny

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:transformers", "ignore::FutureWarning:transformers")

SAME = (
    "albert", "bart", "bert", "clip_text_model", "gemma2", "gpt2", "gpt_neox", "gpt_oss", "llama",
    "marian", "mistral", "mixtral", "phi3", "qwen2", "qwen3_vl", "roberta", "siglip_vision_model", "t5", "vit",
    "whisper",
)  # fmt: skip
REFUSED = ("big_bird", "bigbird_pegasus", "bloom", "deberta", "longformer", "reformer", "splinter", "xlnet")
NO_ATTENTION = ("convnext", "fnet", "resnet")


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)


def installed(names: tuple[str, ...]) -> list[str]:
    """Those that this version has."""
    return [name for name in names if name in model_types()]


@pytest.mark.parametrize("name", installed(SAME))
def test_some_have_the_numbers_of_eager_attention(name: str) -> None:
    found = verdict(name)
    assert (found.outcome, found.why) == ("same", "")
    assert found.calls > 0


@pytest.mark.parametrize("name", installed(REFUSED))
def test_some_are_refused_by_name(name: str) -> None:
    found = verdict(name)
    assert found.outcome == "refused"
    assert found.why == found.kind


@pytest.mark.parametrize("name", installed(NO_ATTENTION))
def test_models_without_attention_are_unchanged(name: str) -> None:
    found = verdict(name)
    assert (found.outcome, found.calls) == ("same", 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", model_types())
def test_none_is_wrong(name: str) -> None:
    found = verdict(name)
    assert found.outcome != "wrong", found


def test_a_refused_model_can_be_switched_to_by_no_other_way() -> None:
    rg.integrate_transformers()
    config = transformers.SplinterConfig(
        vocab_size=61, hidden_size=24, num_hidden_layers=1, num_attention_heads=6, intermediate_size=40
    )
    tokens = torch.randint(3, 61, (2, 7))
    model = transformers.SplinterModel._from_config(config, attn_implementation="eager").eval()
    with pytest.raises(UnsupportedError, match="SplinterModel does not compute its attention"):
        model.set_attn_implementation("regard")
    model.config._attn_implementation = "regard"  # behind the library's back
    with pytest.raises(UnsupportedError, match="SplinterPreTrainedModel"):
        model(tokens)
    pegasus = transformers.BigBirdPegasusModel._from_config(
        transformers.BigBirdPegasusConfig(
            vocab_size=61, d_model=24, encoder_layers=1, decoder_layers=1, encoder_attention_heads=6,
            decoder_attention_heads=6, encoder_ffn_dim=40, decoder_ffn_dim=40, max_position_embeddings=64,
        ),
        attn_implementation="eager",
    ).eval()  # fmt: skip
    pegasus.config._attn_implementation = "regard"
    with pytest.raises(UnsupportedError, match="BigBirdPegasus"):
        pegasus(input_ids=tokens, decoder_input_ids=tokens)


def test_other_attentions_are_asked_for_as_before() -> None:
    rg.integrate_transformers()
    rg.integrate_transformers()
    config = transformers.SplinterConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=6)
    for name in (None, "eager"):
        made = transformers.SplinterModel._from_config(config, attn_implementation=name)
        assert made.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="scaled_dot_product_attention"):
        transformers.SplinterModel._from_config(config, attn_implementation="sdpa")


def test_the_comparison_sees_a_wrong_mask() -> None:
    small = tiny("bert")
    model = build(small.kind, small.config, "eager").to(small.dtype)
    plain, right = run(model, small.inputs[0]), masked(small.inputs[0])[0]
    assert difference(run(model, right), plain, {}) > 10 * ALLOWED
    assert difference(plain, plain, right) == 0


def test_the_page_has_a_row_for_each_type_and_none_that_is_wrong() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+) \| \w* \| (same|refused|wrong|not built) \|", text, re.MULTILINE)
    assert len(rows) > 400
    assert not [name for name, outcome in rows if outcome == "wrong"]
    if f"transformers {transformers.__version__} " in text:
        assert sorted(name for name, _ in rows) == model_types()


def test_a_page_of_one_type() -> None:
    text = page([Verdict("a", "AModel", "not built", 0, 0.0, "x | <y>")])
    assert "| a | AModel | not built | 0 | x \\| &lt;y> |" in text
    assert "| not built | 1 |" in text
