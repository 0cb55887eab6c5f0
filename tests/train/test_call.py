"""`regard.train(...)`, which is a package too, whatever is imported first."""

import inspect
import subprocess
import sys

import pytest

import regard as rg
from regard.errors import ConfigError
from tests.train.made import SMALL, pairs


def test_it_trains_and_gives_what_load_gives(tmp_path, monkeypatch):
    file = pairs(tmp_path / "pairs.tsv")
    monkeypatch.chdir(tmp_path)
    settings = {"vocab_size": 300, "batch_tokens": 128, "model_settings": SMALL["transformer"], "max_tokens": 64}
    translator = rg.train(tmp_path / "pairs.tsv", out=tmp_path / "x", steps=4, evaluate_every=2, **settings)
    assert isinstance(translator, rg.Translator)
    assert translator.config["training"]["options"]["files"] == [file]
    assert translator.translate(["red"])[0].text == rg.load("x").translate(["red"])[0].text
    again = rg.train([file], out="x", steps=5, evaluate_every=2, **settings)
    assert again.config["training"]["options"]["steps"] == 5
    tuned = rg.train("pairs.tsv", start=tmp_path / "x", out="y", steps=1, max_tokens=64)
    assert tuned.tokenizer.fingerprint == translator.tokenizer.fingerprint
    sides = [line.split("\t") for line in (tmp_path / "pairs.tsv").read_text().splitlines()]
    for name, side in (("a.en", 0), ("a.it", 1)):
        (tmp_path / name).write_text("".join(row[side] + "\n" for row in sides))
    rg.train(parallel=(tmp_path / "a.en", tmp_path / "a.it"), out="z", steps=1, **settings)


def test_its_options_are_those_of_the_command():
    with pytest.raises(ConfigError, match="unknown option 'minute'; did you mean 'minutes'"):
        rg.train("pairs.tsv", minute=5)
    with pytest.raises(ConfigError, match=r"files=\(\) and parallel=None: give one of them"):
        rg.train()
    assert list(inspect.signature(rg.train).parameters) == ["files", "options"]


@pytest.mark.parametrize(
    "imports",
    [
        "import regard\ntrain = regard.train",
        "import regard.train.options as o\nimport regard\ntrain = regard.train",
        "from regard.train.options import TrainOptions\nfrom regard import train",
        "import regard.train.run\nimport regard\ntrain = regard.train",
    ],
)
def test_it_is_callable_in_any_order_of_imports(imports):
    code = (
        f"{imports}\nimport regard.train.trainer\n"
        "try:\n    train(minute=1)\nexcept ValueError:\n    print(train.options)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("<module 'regard.train.options'")
