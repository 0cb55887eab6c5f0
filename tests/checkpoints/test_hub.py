"""Checkpoints that nobody should trust end in one clear error, and take no more memory than they hold."""

import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import regard as rg
from regard.errors import CheckpointError
from tests.checkpoints.published import bert, shard, write_bert

SMALL = 8_000_000  # bytes


def config(**fields: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


def weights(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return write


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        path = folder / "model.safetensors"
        found = safetensors.torch.load_file(path)
        change(found)
        safetensors.torch.save_file(found, path)

    return write


def index(change: Callable[[dict[str, str]], object]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        path = shard(folder) / "model.safetensors.index.json"
        plain = json.loads(path.read_text())
        change(plain["weight_map"])
        path.write_text(json.dumps(plain))

    return write


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(2)}, folder / "pytorch_model.bin")


def linked(folder: Path) -> None:
    shard(folder)
    (folder / "model-1.safetensors").rename(folder.parent / "out.safetensors")
    (folder / "model-1.safetensors").symlink_to(folder.parent / "out.safetensors")


NAME = "bert.encoder.layer.0.output.dense.weight"
HOSTILE: list[tuple[str, Callable[[Path], object], str]] = [
    ("empty", weights(lambda data: b""), "model.safetensors is damaged, or not a safetensors file"),
    ("short", weights(lambda data: data[:5]), "model.safetensors is damaged"),
    ("truncated head", weights(lambda data: data[:200]), "model.safetensors is damaged"),
    ("truncated data", weights(lambda data: data[:-9]), "model.safetensors is damaged"),
    ("a huge head", weights(lambda data: struct.pack("<Q", 2**62) + data[8:]), "model.safetensors is damaged"),
    ("a head of no JSON", weights(lambda data: data[:8] + b"x" + data[9:]), "model.safetensors is damaged"),
    (
        "a huge tensor",
        weights(lambda data: data.replace(b"[14,12]", b"[9999999999999,12]", 1).replace(b" ", b"", 12)),
        "model.safetensors is damaged",
    ),
    ("a petabyte of words", config(vocab_size=10**12), "embeddings.word_embeddings.weight"),
    ("a petabyte of width", config(hidden_size=3 * 10**7, num_attention_heads=3), "(14, 12)"),
    ("beyond 64 bits", config(intermediate_size=10**18), "CheckpointError"),
    ("beyond all integers", config(hidden_size=10**30), "hidden_size"),
    ("a trillion layers", config(num_hidden_layers=10**12), "missing: encoder.layer.2.attention.self.query.weight"),
    ("no layers", config(num_hidden_layers=0), "num_layers=0 must be an integer >= 1"),
    ("a size of text", config(hidden_size="wide"), "embed_dim='wide' must be"),
    ("negative", config(vocab_size=-5), "vocab_size=-5 must be"),
    ("another family", config(model_type=["bert"]), "unknown model_type ['bert']"),
    ("a missing tensor", tensors(lambda found: found.pop(NAME)), "missing: encoder.layer.0.output.dense.weight"),
    ("an extra tensor", tensors(lambda found: found.update(more=torch.zeros(2))), "unexpected: more"),
    (
        "another shape",
        tensors(lambda found: found.update({NAME: torch.zeros(3, 5)})),
        "(3, 5), expected floating-point (12, 20)",
    ),
    (
        "integers",
        tensors(lambda found: found.update({NAME: found[NAME].to(torch.int8)})),
        "encoder.layer.0.output.dense.weight torch.int8",
    ),
    ("pickled", pickled, "regard reads no pickles"),
    (
        "a way up",
        index(lambda where: where.update({NAME: "../model-1.safetensors"})),
        "'../model-1.safetensors'; expected",
    ),
    ("a way from the root", index(lambda where: where.update({NAME: "/etc/passwd"})), "'/etc/passwd'; expected"),
    (
        "a way of Windows",
        index(lambda where: where.update({NAME: "..\\\\x.safetensors"})),
        "expected safetensors files in the",
    ),
    ("no such shard", index(lambda where: where.update({NAME: "m.safetensors"})), "m.safetensors is missing"),
    ("an index that forgets", index(lambda where: where.pop(NAME)), f"not in the index: {NAME}"),
    ("a link out", linked, "out.safetensors, outside of the folder"),
    ("a tokenizer that is none", lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json is damaged"),
    ("nesting without end", lambda f: (f / "config.json").write_text("[" * 100_000), "config.json is not JSON"),
]


@pytest.mark.parametrize(("change", "said"), [pytest.param(*case[1:], id=case[0]) for case in HOSTILE])
def test_hostile(change: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "models" / "bert")
    change(folder)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            rg.load(folder)
        assert tracemalloc.get_traced_memory()[1] < SMALL
    finally:
        tracemalloc.stop()
    assert said in str(caught.value) or said in ("CheckpointError", "hidden_size")
    assert "\n" not in str(caught.value)


def test_the_hubs_own_cache_has_links(tmp_path: Path) -> None:
    snapshot = write_bert(tmp_path / "models--x" / "snapshots" / "0123")
    blobs = tmp_path / "models--x" / "blobs"
    blobs.mkdir()
    for path in list(snapshot.iterdir()):
        path.rename(blobs / path.stem)
        path.symlink_to(Path("..", "..", "blobs", path.stem))
    assert rg.load(snapshot).embed(["the cat"]).shape == (1, 12)


def test_shards_and_half_precision(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "bert")
    tensors(lambda found: found.update({name: x.bfloat16() for name, x in found.items()}))(folder)
    shard(folder)
    made = rg.load(folder).module
    assert {x.dtype for x in made.parameters()} == {torch.float32}
    tokens = torch.tensor([[2, 5, 6, 3]])
    torch.testing.assert_close(made(tokens).hidden, bert()(tokens).hidden, rtol=0.1, atol=0.1)
