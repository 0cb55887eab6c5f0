"""`regard fill`, `regard embed` and `regard see` with an encoder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import regard as rg
from tests.checkpoints.published import write_bert
from tests.cli.run import error, regard


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_bert(tmp_path / "bert"))


def test_fill(model: str) -> None:
    lines = [
        line.split("\t")
        for line in regard("fill", "the [MASK] sat [MASK].", "--model", model, "--top", "2").stdout.splitlines()
    ]
    assert [line[:2] for line in lines] == [["1", "1"], ["1", "1"], ["1", "2"], ["1", "2"]]
    [filling] = rg.load(model).fill(["the [MASK] sat [MASK]."], top=2)
    assert lines[0][3:] == [filling.places[0][0].text, filling.text]
    assert f"{filling.places[1][1].probability:.4f}" == lines[3][2]
    told = json.loads(regard("fill", "--json", "--model", model, stdin="a [MASK]\n").stdout)
    assert told["source"] == "a [MASK]"
    marked = json.loads(regard("fill", "--json", "--model", model, stdin="\ufeffa [MASK]\n").stdout)
    assert marked == told
    assert len(told["places"][0]) == 5


def test_embed(model: str, tmp_path: Path) -> None:
    texts = ["the cat sat", "a", "mat . mat . mat . mat . mat . mat ."]
    expected = rg.load(model).embed(texts)
    found = regard("embed", *texts, "--model", model)
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert [row["text"] for row in rows] == texts
    torch.testing.assert_close(torch.tensor([row["embedding"] for row in rows]), expected)
    assert "1 of 3 texts are longer than the model reads: their ends were cut" in found.stderr
    regard("embed", "--model", model, "--npy", str(tmp_path / "v"), "--pooling", "cls", "--raw", stdin="\n".join(texts))
    written = np.load(tmp_path / "v")
    marked = regard("embed", "--model", model, stdin="\ufeff" + "\n".join(texts))
    assert marked.stdout == found.stdout
    torch.testing.assert_close(torch.from_numpy(written), rg.load(model).embed(texts, pooling="cls", normalize=False))


def test_see(model: str, tmp_path: Path) -> None:
    found = regard("see", "the cats sat", "--model", model, "--html", str(tmp_path / "a.html"))
    assert found.stdout.startswith("Attention of source to itself, mean of 2 layers, mean of 3 heads")
    assert "cats" in found.stdout
    assert "cats" in (tmp_path / "a.html").read_text()


def test_one_clear_error(model: str) -> None:
    assert "write [MASK] where a word is to be found" in error("fill", "the cat", "--model", model, code=1)
    assert "unknown pooling 'men'" in error("embed", "a", "--pooling", "men", "--model", model, code=1)
    assert "is a Translator, which cannot embed" in error("embed", "a", code=1)
