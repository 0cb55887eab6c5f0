"""`regard transcribe`."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import regard as rg
from regard.tasks.speech_decoding import Fallback
from tests.audio.sounds import RATE, sine, write
from tests.cli.run import error, regard
from tests.tasks.speech_models import write_whisper

ONCE = Fallback(temperatures=(0.0,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whisper(tmp_path_factory.mktemp("whisper") / "model")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Sounds, a text file named as a sound, and a file that is missing."""
    made = tmp_path_factory.mktemp("sounds")
    names = [write(made / f"tone{i}.wav", sine(0.5 + 0.2 * i, 300.0 * (i + 1))) for i in range(3)]
    (made / "text.wav").write_text("no sound")
    return [str(x) for x in (names[0], made / "text.wav", names[1], made / "missing.wav", names[2])]


def expected(folder: Path, names: list[str], **settings: object) -> list[str]:
    return [" ".join(str(x).split()) for x in rg.load(folder).transcribe(names, fallback=ONCE, **settings)]


def test_a_line_a_file_in_order_and_bad_files_are_reported(folder: Path, files: list[str]) -> None:
    result = regard("transcribe", *files, "--model", str(folder), "--language", "it", "--no-fallback")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == expected(folder, files[::2], language="it")
    first, second, last = result.stderr.splitlines()
    assert first.startswith(f"regard: error: {files[1]} is no sound file")
    assert second == f"regard: error: {files[3]} does not exist; expected a sound file"
    assert last == "regard: error: 2 of 5 files could not be transcribed; see the lines above"


def test_one_file_is_shown_as_it_comes(folder: Path, files: list[str]) -> None:
    result = regard("transcribe", files[0], "--model", str(folder), "--no-fallback", "-v")
    assert result.exit_code == 0
    assert result.stdout.split() == " ".join(expected(folder, files[:1])).split()
    assert re.search(
        r"tone0\.wav: 0\.50 s, WAV PCM_16, 16,000 Hz, mono, peak 0\.500, language \w\w \([01]\.\d\d\)", result.stderr
    )


def test_standard_input_with_a_header_and_raw(folder: Path, files: list[str]) -> None:
    [text] = expected(folder, files[:1], language="it")
    data = Path(files[0]).read_bytes()
    options = ["--model", str(folder), "--language", "it", "--no-fallback"]
    assert regard("transcribe", "-", *options, stdin=data).stdout.split() == text.split()
    raw = (np.round(sine(0.5, 300.0) * 32768)).astype("<i2").tobytes()
    result = regard("transcribe", "-", *options, "--rate", str(RATE), stdin=raw)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1
    assert "standard input is empty" in error("transcribe", "-", *options, stdin=b"", code=1)
    assert "--channels is of raw samples" in error("transcribe", "-", *options, "--channels", "2", stdin=raw)
    assert "--length-penalty is of beam search" in error(
        "transcribe", "-", *options, "--length-penalty", "2", stdin=raw
    )


def test_files_of_every_format_are_written(folder: Path, files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "captions"
    names = files[::2]
    result = regard(
        "transcribe", *names, "--model", str(folder), "--language", "it", "--no-fallback", "--words", "--out", str(out),
        "--format", "srt,vtt,json,tsv,txt", "--width", "10",
    )  # fmt: skip
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == len(names)
    assert sorted(x.name for x in out.iterdir()) == sorted(
        f"tone{i}.{kind}" for i in range(3) for kind in ("srt", "vtt", "json", "tsv", "txt")
    )
    plain = json.loads((out / "tone0.json").read_text())
    assert plain["language"] == "it"
    assert (out / "tone0.vtt").read_text().startswith("WEBVTT\n")


def test_formats_on_standard_output(folder: Path, files: list[str]) -> None:
    options = ["--model", str(folder), "--language", "it", "--no-fallback"]
    lines = regard("transcribe", *files[::2], *options, "--format", "json").stdout.splitlines()
    assert [json.loads(line)["file"] for line in lines] == files[::2]
    assert regard("transcribe", files[0], *options, "--format", "vtt").stdout.startswith("WEBVTT\n")
    ranked = regard("transcribe", files[0], *options, "--n-best", "2").stdout.splitlines()
    assert [line.split("\t")[0] for line in ranked] == ["1", "2"]


def test_misuse_raises(folder: Path, files: list[str], tmp_path: Path) -> None:
    model = ["--model", str(folder)]
    assert "needs --out FOLDER" in error("transcribe", *files, *model, "--format", "srt")
    assert "did you mean 'srt'" in error("transcribe", files[0], *model, "--format", "strt")
    assert "would both be written as tone0" in error("transcribe", files[0], files[0], *model, "--out", str(tmp_path))
    assert "does not know the language 'de'" in error("transcribe", files[0], *model, "--language", "de", code=1)
    assert "translate to English only" in error("transcribe", files[0], *model, "--to", "it", code=1)
    assert "cannot transcribe" in error("transcribe", files[0], code=1)
