"""Maps over pictures: from transformers' eager weights, and where a model that was made to looks."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import regard as rg
from regard.errors import ConfigError
from regard.lens.relevance import Attended, relevance
from regard.lens.rollout import rollout
from regard.lens.token_maps import token_relevance, token_rollout, trace
from tests.cli.run import error, regard
from tests.vision.made import published, shape

LABELS = ["red", "green"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("models") / "vit", LABELS)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("photos") / "photo.png"
    shape("red", 3).save(file)
    return file


def test_maps_are_those_of_eager_weights(folder: Path, photo: Path) -> None:
    runner = rg.load(folder)
    own = next(runner.module.parameters())
    own.grad = torch.ones_like(own)  # of a training that goes on
    maps = runner.see(photo)
    model = transformers.ViTForImageClassification.from_pretrained(folder, attn_implementation="eager").eval()
    inputs = runner.processor.normalized(torch.from_numpy(runner.read(photo)).permute(2, 0, 1)[None])
    output = model(inputs, output_attentions=True)
    expected = torch.stack([x[0, :, 0, 1:] for x in output.attentions]).detach()
    assert maps.attention.shape == (2, 2, 4, 4)
    torch.testing.assert_close(maps.attention.flatten(2), expected, atol=1e-5, rtol=0)
    rolled = rollout([x.detach() for x in output.attentions])[0, 0, 1:].view(4, 4)
    torch.testing.assert_close(maps.map(), rolled, atol=1e-5, rtol=0)
    probabilities = output.logits.softmax(-1)[0].detach()
    assert maps.label == LABELS[int(probabilities.argmax())]
    assert maps.probability == pytest.approx(float(probabilities.max()), abs=1e-5)
    for x in output.attentions:
        x.retain_grad()
    output.logits[0, LABELS.index(maps.label)].backward()
    related = relevance([Attended(x.detach(), x.grad) for x in output.attentions])[0, 0, 1:].view(4, 4)
    torch.testing.assert_close(maps.map("attention x gradient"), related, atol=1e-5, rtol=0)
    torch.testing.assert_close(maps.map("attention", layer=1, head=2), maps.attention[0, 1])
    torch.testing.assert_close(maps.map("attention"), maps.attention[1].mean(0))
    assert torch.equal(own.grad, torch.ones_like(own))
    assert all(parameter.grad is None for parameter in runner.module.parameters() if parameter is not own)


def test_without_a_classifier_there_is_no_gradient(tmp_path: Path, photo: Path) -> None:
    maps = rg.load(published(tmp_path / "encoder")).see(photo)
    assert (maps.label, list(maps.maps)) == ("", ["rollout"])
    with pytest.raises(ConfigError, match="no map 'attention x gradient'"):
        maps.map("attention x gradient")
    with pytest.raises(ConfigError, match="layer=3; expected a number from 1 to 2"):
        maps.map("attention", layer=3)


def test_overlays(folder: Path, photo: Path, tmp_path: Path) -> None:
    maps = rg.load(folder).see(photo)
    one = torch.zeros(4, 4)
    one[3, 0] = 1.0
    changed = np.abs(maps.overlay(one).astype(int) - maps.pixels).sum(2)
    assert maps.overlay(one).shape == maps.pixels.shape
    assert changed[12:, :4].mean() > 1.2 * changed[:4, 12:].mean()  # the largest weight is the most opaque
    assert np.array_equal(maps.overlay(None), maps.pixels)
    maps.png(tmp_path / "looked.png")
    with Image.open(tmp_path / "looked.png") as image:
        assert image.width > 5 * 200
    colored, plain = maps.terminal(one), maps.terminal(one, color=False)
    assert "\x1b[38;2;" in colored
    assert plain.splitlines()[-1].startswith("█")
    assert plain[0] == "·"


def test_the_verb(folder: Path, photo: Path, tmp_path: Path) -> None:
    page, sheet = tmp_path / "looked.html", tmp_path / "looked.png"
    result = regard("see", str(photo), "--model", str(folder), "--html", str(page), "--png", str(sheet))
    assert f"wrote {page}" in result.stderr
    assert f"wrote {sheet}" in result.stderr
    assert result.stdout.splitlines()[-1].split()[0] in LABELS
    text = page.read_text(encoding="utf-8")
    assert "data:image/png;base64," in text
    assert "http" not in text.replace("http-equiv", "")
    assert "{{" not in text
    message = error("see", str(photo), code=1)
    assert "are pictures" in message


def test_rows_of_one_token_of_any_encoder() -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        attn_implementation="sdpa",
    )
    model = transformers.BertModel(config).eval()
    ids = torch.randint(50, (2, 300))  # more rows than are read at a time
    with torch.no_grad(), trace(model) as calls:
        model(ids)
    with torch.no_grad(), rg.record(model, weights=True) as recording:
        model(ids)
    expected = rollout([one.weights for one in recording.values()])
    for token in (0, 299):
        torch.testing.assert_close(token_rollout(calls, token), expected[:, token], atol=1e-6, rtol=0)
    with pytest.raises(ConfigError, match="has no gradient"):
        token_relevance(calls)
    with pytest.raises(ConfigError, match="no attention was traced"):
        token_rollout([])
