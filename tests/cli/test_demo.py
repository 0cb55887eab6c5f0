"""`regard demo`: both parts with models of no worth, and as a slow test the whole with its bar."""

import dataclasses
import re
import time
from pathlib import Path
from typing import Any

import pytest

from regard.checkpoints import shipped as trained
from regard.cli import demo
from regard.train.options import TrainOptions
from tests.checkpoints.made import translator
from tests.cli.run import regard

ORDINARY = demo.options


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of training instead of a minute."""

    def options(*files: Path, **settings: Any) -> TrainOptions:
        few = {"steps": 2, "evaluate_every": 2, "batch_tokens": 256, "vocab_size": 400}
        return dataclasses.replace(ORDINARY(*files, **settings), **few)

    monkeypatch.setattr(demo, "options", options)
    for count, size in (("TRAINED", 200), ("HELD_OUT", 20), ("TESTED", 30)):
        monkeypatch.setattr(demo, count, size)
    monkeypatch.setattr(demo, "SENTENCES", demo.SENTENCES[:1])
    monkeypatch.setattr(demo, "SHOWN_LANGUAGES", demo.SHOWN_LANGUAGES[:1])


def found(shown: str) -> str:
    """What the demo tells of its model of dates."""
    return shown.partition("Unseen dates: ")[2].partition("The demo took")[0]


def test_both_parts_and_again_without_a_shipped_model(
    quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    translator(max_tokens=256).save(tmp_path / "shipped")
    monkeypatch.setattr(trained, "SHIPPED", tmp_path / "shipped")
    out = tmp_path / "out"
    result = regard("demo", "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert f"{demo.SENTENCES[0]}\n  -> " in result.stdout
    assert f"wrote {out}/attention.html: all heads and layers, for 1 sentences" in result.stdout
    assert f"wrote {out}/dates.html" in result.stdout
    assert re.search(r"Unseen dates: \d+ of 30 are right to the last digit, \d+\.\d%\.", result.stdout)
    assert "The worst languages, of 1 dates each: Arabic " in result.stdout
    assert "That is less than the expected 90%." in result.stdout
    assert "<th>maggio</th>" in (out / "dates.html").read_text(encoding="utf-8")
    monkeypatch.setattr(trained, "SHIPPED", tmp_path / "none")
    again = regard("demo", "--out", str(out))
    assert f"This copy of regard ships no model ({tmp_path}/none is missing); continuing with part 2.\n" in again.stdout
    assert f"{out}/dates is finished" in again.output
    assert found(again.stdout) == found(result.stdout)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = regard("demo", "--out", str(tmp_path / "file"))
    assert result.exit_code == 1
    assert result.stderr == f"regard: error: {tmp_path}/file: File exists\n"


@pytest.mark.slow
def test_the_whole_demo(tmp_path: Path) -> None:
    began = time.process_time()
    result = regard("demo", "--out", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    [share] = re.findall(r"last digit, (\d+\.\d)%", result.stdout)
    assert float(share) >= 90
    assert time.process_time() - began < 240  # processor time, which other work on the machine changes less
