"""Whisper against the transformers package: states, logits, gradients, and decoding in several ways."""

from typing import Any

import pytest
import torch

from regard.errors import CheckpointError, ConfigError, ShapeError, UnsupportedError
from regard.models.whisper import Whisper, WhisperConfig
from regard.models.whisper_names import from_whisper, to_whisper

transformers = pytest.importorskip("transformers")

SMALL: dict[str, Any] = {
    "vocab_size": 61, "d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 3,
    "decoder_attention_heads": 3, "encoder_ffn_dim": 29, "decoder_ffn_dim": 29, "num_mel_bins": 7,
    "max_source_positions": 19, "max_target_positions": 23, "pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1,
    "decoder_start_token_id": 2, "begin_suppress_tokens": None, "init_std": 0.2,
}  # fmt: skip
VARIANTS: list[dict[str, Any]] = [
    {},
    {"decoder_layers": 1, "num_mel_bins": 11, "activation_function": "gelu_new"},
    {"d_model": 30, "encoder_layers": 3, "encoder_attention_heads": 5, "decoder_attention_heads": 5},
]


def theirs_of(changes: dict[str, Any], dtype: torch.dtype = torch.float64) -> Any:
    """A random model of the transformers package."""
    torch.manual_seed(0)
    config = transformers.WhisperConfig(**{**SMALL, **changes})
    config._attn_implementation = "eager"
    model = transformers.WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and gains too
            parameter += 0.1 * torch.randn_like(parameter)
    return model.to(dtype).eval()


def inputs_of(ours: Whisper, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Spectrograms (3, 38, M) and targets (3, 13)."""
    torch.manual_seed(1)
    frames = 2 * ours.config.source_length
    targets = torch.randint(3, ours.vocabulary.size, (3, 13))
    return torch.randn(3, frames, ours.config.num_mels, dtype=dtype), targets


@pytest.mark.parametrize("changes", VARIANTS)
def test_outputs_and_gradients(changes: dict[str, Any]) -> None:
    theirs = theirs_of(changes)
    ours = from_whisper(theirs.config.to_dict(), theirs.state_dict())
    inputs, targets = inputs_of(ours)
    expected = theirs(inputs.transpose(1, 2), decoder_input_ids=targets)
    output = ours(inputs, None, targets)
    for mine, other in ((output.memory.states, expected.encoder_last_hidden_state), (output.logits, expected.logits)):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10 * max(1, float(other.detach().abs().max())))
    output.logits.square().sum().backward()
    expected.logits.square().sum().backward()
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in theirs.named_parameters()}
    named = from_whisper(theirs.config.to_dict(), gradients).named_parameters()
    by_name = {name: x.detach() for name, x in named}
    assert len(by_name) > 30
    for name, parameter in ours.named_parameters():
        scale = max(1.0, float(by_name[name].abs().max()))
        torch.testing.assert_close(parameter.grad, by_name[name], rtol=0, atol=1e-10 * scale, msg=name)


def test_checkpoints_go_there_and_back() -> None:
    theirs = theirs_of({})
    ours = from_whisper(theirs.config.to_dict(), theirs.state_dict())
    fields, state = to_whisper(ours)
    back = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**fields))
    back.load_state_dict(state)
    inputs, targets = inputs_of(ours)
    expected = theirs(inputs.transpose(1, 2), decoder_input_ids=targets).logits
    torch.testing.assert_close(back.double().eval()(inputs.transpose(1, 2), decoder_input_ids=targets).logits, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_and_extensions_are_the_whole_target(dtype: torch.dtype) -> None:
    theirs = theirs_of({}, dtype)
    ours = from_whisper(theirs.config.to_dict(), theirs.state_dict())
    inputs, targets = inputs_of(ours, dtype)
    with torch.inference_mode():
        expected = ours(inputs, None, targets).logits
        state, start = ours.prefill(inputs)
        assert start.tolist() == [2, 2, 2]
        first = ours.step(targets[:, :1], state)
        middle = ours.projection.logits(ours.extend(targets[:, 1:6], state))
        rest = [ours.step(targets[:, i : i + 1], state) for i in range(6, 13)]
    tolerance = {"rtol": 0, "atol": 1e-12 if dtype == torch.float64 else 1e-5}
    torch.testing.assert_close(torch.cat([first, middle, *rest], 1), expected, **tolerance)


def test_a_shorter_window_takes_the_first_positions() -> None:
    theirs = theirs_of({})
    ours = from_whisper(theirs.config.to_dict(), theirs.state_dict())
    inputs, targets = inputs_of(ours)
    short = from_whisper(
        {**theirs.config.to_dict(), "max_source_positions": 10},
        {n: x[:10] if "encoder.embed_positions" in n else x for n, x in theirs.state_dict().items()},
    )
    torch.testing.assert_close(ours(inputs[:, :20], None, targets).logits, short(inputs[:, :20], None, targets).logits)


def test_what_does_not_fit_is_told() -> None:
    theirs = theirs_of({})
    config, state = theirs.config.to_dict(), theirs.state_dict()
    ours = from_whisper(config, state)
    with pytest.raises(ShapeError, match=r"expected log-mel spectrograms, floats of shape \(batch, frames, 7\)"):
        ours.prefill(torch.zeros(2, 39, 7))
    with pytest.raises(UnsupportedError, match="decoder_attention_heads=2 differs from encoder_attention_heads=3"):
        from_whisper({**config, "decoder_attention_heads": 2}, state)
    with pytest.raises(UnsupportedError, match="scale_embedding=True is not supported"):
        from_whisper({**config, "scale_embedding": True}, state)
    with pytest.raises(CheckpointError, match=r"missing: encoder\.conv1\.bias"):
        from_whisper(config, {name: x for name, x in state.items() if "conv1.bias" not in name})
    with pytest.raises(ConfigError, match="embed_dim=3 must be even"):
        WhisperConfig(vocabulary=ours.vocabulary, embed_dim=3)
    with pytest.raises(ConfigError, match="no preset 'huge'"):
        WhisperConfig.from_preset("huge", ours.vocabulary)
