"""ViT, DeiT and DINOv2 against the transformers package: states, logits and gradients, at several picture sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from regard.checkpoints.hub import load_hub
from regard.errors import CheckpointError, ConfigError, ShapeError, UnsupportedError
from regard.models.vit import ViT, ViTConfig
from regard.models.vit_names import from_vit, to_vit

transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 35, "patch_size": 5,
    "initializer_range": 0.1,
}  # fmt: skip
LABELS = {"num_labels": 11}
VARIANTS: list[tuple[str, str, dict[str, Any]]] = [
    ("ViT", "Model", {"intermediate_size": 29}),
    ("ViT", "ForImageClassification", {"intermediate_size": 29, "qkv_bias": False, "hidden_act": "gelu_new", **LABELS}),
    ("ViT", "ForImageClassification", {"layer_norm_eps": 0.1, "num_channels": 2, "image_size": [37, 37], **LABELS}),
    ("DeiT", "Model", {"intermediate_size": 31}),
    ("DeiT", "ForImageClassification", {"intermediate_size": 31, **LABELS}),
    ("DeiT", "ForImageClassificationWithTeacher", {"intermediate_size": 31, **LABELS}),
    ("Dinov2", "Model", {"mlp_ratio": 2, "layerscale_value": 0.3}),
    ("Dinov2", "ForImageClassification", {"use_swiglu_ffn": True, **LABELS}),
    ("Dinov2WithRegisters", "Model", {"use_swiglu_ffn": True, "qkv_bias": False}),
    ("Dinov2WithRegisters", "ForImageClassification", {"num_register_tokens": 3, "mlp_ratio": 3, **LABELS}),
]  # fmt: skip
SHAPES = [(35, 35), (50, 50), (41, 67), (15, 20)]


def theirs_of(family: str, head: str, changes: dict[str, Any], dtype: torch.dtype = torch.float64) -> Any:
    """A random model of the transformers package."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SMALL, **changes})
    config._attn_implementation = "sdpa"  # their eager softmax of ViT and DeiT is in float32 whatever the inputs
    model = getattr(transformers, f"{family}{head}")(config)
    with torch.no_grad():
        for parameter in model.parameters():  # biases, gains and tokens too
            parameter += 0.1 * torch.randn_like(parameter)
    return model.to(dtype).eval()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("family", "head", "changes"), VARIANTS)
def test_outputs_and_gradients(family: str, head: str, changes: dict[str, Any], shape: tuple[int, int]) -> None:
    theirs = theirs_of(family, head, changes)
    ours = from_vit(theirs.config.to_dict(), theirs.state_dict())
    pictures = torch.randn(3, ours.config.num_channels, *shape, dtype=torch.float64)
    how = {} if family.startswith("Dino") else {"interpolate_pos_encoding": True}
    expected = theirs(pictures, output_hidden_states=True, **how)
    output = ours(pictures)
    pairs = []
    if head == "Model":
        pairs.append((output.hidden, expected.last_hidden_state))
        pooled = output.hidden[:, 0] if output.pooled is None else output.pooled
        pairs.append((pooled, expected.pooler_output))
    else:
        pairs.append((output.logits, expected.logits))
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10 * max(1, float(other.detach().abs().max())))
    for at in (0, 1):
        sum(pair[at].square().sum() for pair in pairs).backward()
    compare_gradients(ours, theirs)


def compare_gradients(ours: ViT, theirs: Any) -> None:
    """Every gradient, by our names."""
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in theirs.named_parameters()}
    expected = {name: p.detach() for name, p in from_vit(theirs.config.to_dict(), gradients).named_parameters()}
    compared = 0
    # The gradient of a key's bias is 0 but for rounding: it moves all scores of a row.
    for name, parameter in ours.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        scale = max(1.0, max(float(x.abs().max()) for x in (gradient, expected[name])))
        if "key_proj.bias" in name:
            scale = max(scale, float(expected[name.replace("bias", "weight")].abs().max()))
        assert float((gradient - expected[name]).detach().abs().max()) <= 1e-10 * scale, name
        compared += bool(gradient.any())
    assert compared > 20


@pytest.mark.parametrize(("family", "head", "changes"), VARIANTS)
def test_folders_both_ways(family: str, head: str, changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = theirs_of(family, head, changes, torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    job, ours, tokenizer, config = load_hub(tmp_path / "theirs")
    assert (job, tokenizer, config["published"]["model_type"]) == ("pictures", None, theirs.config.model_type)
    fields, state = to_vit(ours)
    again = from_vit(fields, state)
    assert again.config == ours.config
    for name, x in ours.state_dict().items():
        assert torch.equal(x, again.state_dict()[name]), name
    pictures = torch.randn(2, ours.config.num_channels, 35, 35)
    how = {} if family.startswith("Dino") else {"interpolate_pos_encoding": True}
    expected = theirs(pictures, **how)
    mine, other = (
        (ours(pictures).hidden, expected.last_hidden_state)
        if head == "Model"
        else (ours(pictures).logits, expected.logits)
    )
    torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5 * max(1, float(other.detach().abs().max())))


def test_one_picture_and_a_batch_agree() -> None:
    torch.manual_seed(0)
    model = ViT(
        ViTConfig(image_size=16, patch_size=4, embed_dim=32, num_heads=4, ffn_dim=48, num_layers=2, num_labels=7)
    )
    pictures = torch.randn(19, 3, 16, 24)
    with torch.inference_mode():
        whole = model.eval()(pictures).logits
        single = torch.cat([model(one[None]).logits for one in pictures])
    assert whole is not None
    torch.testing.assert_close(whole, single, rtol=0, atol=1e-5)


def test_what_is_refused() -> None:
    theirs = theirs_of("ViT", "Model", {"intermediate_size": 29})
    fields, state = theirs.config.to_dict(), theirs.state_dict()
    for changes in ({"image_size": [35, 40]}, {"pooler_act": "relu"}, {"pooler_output_size": 7}, {"hidden_act": "x"}):
        with pytest.raises(UnsupportedError, match=next(iter(changes))):
            from_vit({**fields, **changes}, state)
    with pytest.raises(CheckpointError, match="do not match the configuration"):
        from_vit({**fields, "image_size": 40}, state)
    with pytest.raises(ShapeError, match=r"\(1, 3, 4, 9\)"):
        from_vit(fields, state)(torch.zeros(1, 3, 4, 9).double())
    with pytest.raises(ConfigError, match="patch_size=16"):
        ViTConfig(image_size=8)
    with pytest.raises(ConfigError, match="distilled=True"):
        ViTConfig(head="both")
    with pytest.raises(UnsupportedError, match=r"layer_scale=0\.5"):
        to_vit(ViT(ViTConfig(embed_dim=24, num_heads=2, num_layers=1, layer_scale=0.5)))
