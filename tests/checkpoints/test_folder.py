"""What is saved is read again as it was, and a folder that is damaged changes nothing and says why."""

import errno
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from regard.checkpoints.folder import read, read_weights_info, save
from regard.errors import CheckpointError
from regard.models.registry import MODELS, build
from regard.models.seq2seq import Vocabulary
from regard.tasks.text_to_text import TextToText
from tests.checkpoints.made import SENTENCES, tokenizer, transformer


def test_saved_and_read(tmp_path: Path) -> None:
    module = transformer()
    save(tmp_path / "run", module, tokenizer(), {"training": {"steps": 3}, "format": 99}, task="translate")
    before = torch.get_rng_state()
    again, words, config = read(tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)
    assert again.config == module.config
    assert not again.training
    for name, x in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], x), name
    assert words.encode_batch(SENTENCES) == tokenizer().encode_batch(SENTENCES)
    assert config["training"] == {"steps": 3}
    assert (config["format"], config["task"], config["model"]["name"]) == (1, "translate", "transformer")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


@pytest.mark.parametrize("name", TextToText.models)
def test_every_model(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        module = build(MODELS[name][0](vocabulary=Vocabulary(size=tokenizer().size)))
    save(tmp_path, module, tokenizer(), {}, task="translate")
    again, _, _ = read(tmp_path)
    assert again.config == module.config
    assert all(torch.equal(again.state_dict()[key], x) for key, x in module.state_dict().items())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_on_disk(dtype: str, tmp_path: Path) -> None:
    module = transformer()
    save(tmp_path / "half", module, tokenizer(), {}, dtype=dtype, task="translate")
    save(tmp_path / "full", module, tokenizer(), {}, task="translate")
    again, _, _ = read(tmp_path / "half")
    for name, x in module.state_dict().items():
        assert again.state_dict()[name].dtype == torch.float32
        assert torch.equal(again.state_dict()[name], x.to(getattr(torch, dtype)).float())
    half, full = read_weights_info(tmp_path / "half"), read_weights_info(tmp_path / "full")
    assert half.numbers == full.numbers == sum(x.numel() for x in module.parameters())
    assert half.size < 0.6 * full.size
    assert (half.dtypes, full.dtypes) == (["BF16" if dtype == "bfloat16" else "F16"], ["F32"])


def test_shared_tensors_are_written_once(tmp_path: Path) -> None:
    module = transformer()
    module.register_parameter("second_name", module.embedding.weight)
    save(tmp_path, module, tokenizer(), {}, task="translate")
    names = set(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    assert len(names & {"second_name", "embedding.weight"}) == 1


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, transformer(), tokenizer(), {"training": {"steps": 1}}, task="translate")
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = []

    def full(descriptor: int) -> None:
        done.append(descriptor)
        if len(done) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, transformer(), tokenizer(), {"training": {"steps": 2}}, task="translate")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_files_that_were_cut_off(name: str, share: float, tmp_path: Path) -> None:
    save(tmp_path, transformer(), tokenizer(), {}, task="translate")
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=name):
        read(tmp_path)


def test_weights_whose_head_lies(tmp_path: Path) -> None:
    """A head that says another shape than the file holds."""
    save(tmp_path, transformer(), tokenizer(), {}, task="translate")
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"shape":[16,', b'"shape":[61,', 1))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read(tmp_path)


def test_a_config_with_sizes_out_of_this_world(tmp_path: Path) -> None:
    save(tmp_path, transformer(), tokenizer(), {}, task="translate")
    path = tmp_path / "config.json"
    for name, x in [("embed_dim", 10**9), ("embed_dim", -4), ("ffn_dim", 10**30), ("num_heads", "two")]:
        config = json.loads(path.read_text())
        config["model"][name] = x
        other = tmp_path / "other"
        save(other, transformer(), tokenizer(), {}, task="translate")
        (other / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=r"config\.json"):
            read(other)
