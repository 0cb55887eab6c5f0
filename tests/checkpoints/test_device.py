"""A model runs where it is said to."""

from pathlib import Path

import pytest
import torch

import regard as rg
from regard.checkpoints.device import device_of
from regard.errors import ConfigError
from tests.checkpoints.made import SENTENCES
from tests.cli.run import error, model_folder, regard


@pytest.mark.parametrize("name", ["cpu", "cpu:0", "auto", torch.device("cpu")])
def test_devices_that_are_here(name: str | torch.device) -> None:
    expected = "cuda" if name == "auto" and torch.cuda.is_available() else "cpu"
    assert device_of(name).type == expected
    assert next(rg.load(model_folder(), device=name).module.parameters()).device.type == expected


def test_gpus_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of("auto") == device_of("cuda") == torch.device("cuda")
    assert device_of("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match="device='cuda:2' is not available: PyTorch finds 2, numbered from 0"):
        device_of("cuda:2")


@pytest.mark.parametrize("verb", ["translate", "embed", "fill", "complete", "see", "evaluate", "demo"])
def test_every_verb_that_runs_a_model_takes_a_device(verb: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text(f"{SENTENCES[0]}\t{SENTENCES[1]}\n")
    words = {"evaluate": (str(tmp_path / "pairs.tsv"),), "demo": ("--out", str(tmp_path / "demo"))}.get(verb, ("a",))
    assert "device='gpu' is unknown; expected auto, cpu, cuda" in error(verb, *words, "--device", "gpu", code=1)
    assert "--device" in regard(verb, "--help").stdout


def test_a_run_on_a_device_that_is_named() -> None:
    words = ("translate", SENTENCES[0], "--model", str(model_folder()), "--greedy")
    assert regard(*words, "--device", "cpu").stdout == regard(*words).stdout
