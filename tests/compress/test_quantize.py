"""Quantization with a report: what stays in float32, and how size, speed and score change."""

import json
from pathlib import Path
from typing import get_type_hints

import pytest

import regard as rg
from regard.cli import quantize as command
from regard.compress import quantize as compression
from regard.compress.calibrate import calibrate
from regard.compress.quantize import quantize, weight_bytes
from regard.errors import ConfigError, UnsupportedError
from regard.layers.quantized_linear import is_quantized
from regard.tasks.bootstrap import paired_difference
from regard.tasks.registry import JOBS, runner_class
from tests.audio.sounds import sine, write
from tests.checkpoints.language_models import gpt2_folder
from tests.cli.run import error, regard
from tests.compress.made import RECORDS, transformer, translator
from tests.tasks.speech_models import write_whisper

OUTLIER = "encoder.1.feed_forward.contract"


def test_a_map_with_outliers_stays_in_float32() -> None:
    runner = translator()
    # One hidden feature is so large in all rows that the others vanish; its own weights are 0.
    runner.module.encoder[1].feed_forward.expand.bias.data[3] = 1e4
    runner.module.encoder[1].feed_forward.contract.weight.data[:, 3] = 0
    report = quantize(runner, RECORDS[:4], max_error=0.2)
    assert report.kept == [OUTLIER]
    assert not is_quantized(runner.module.get_submodule(OUTLIER))
    by_name = {x.name: x for x in report.maps}
    assert by_name[OUTLIER].vanished > 0.9
    assert 0 < by_name["encoder.0.feed_forward.contract"].error < 0.05
    assert f"stays in float32, error above 20%: {OUTLIER}" in report.table()


def test_the_report() -> None:
    runner = translator()
    size = weight_bytes(runner.module)
    report = quantize(runner, RECORDS)
    assert (report.bytes_before, report.bytes_after) == (size, weight_bytes(runner.module))
    assert report.bytes_after < 0.4 * size
    assert report.kept == []
    assert report.before.metric == "bleu"
    assert report.before.records == len(RECORDS)
    assert report.difference.low <= report.difference.mean <= report.difference.high
    assert json.loads(json.dumps(report.to_plain()))["before"]["score"] == report.before.score
    assert "95% interval" in report.table()


def test_the_report_of_a_speech_model(tmp_path: Path) -> None:
    records = [(str(write(tmp_path / f"{i}.wav", sine(1, 100 * i))), "a tone") for i in (1, 2, 3)]
    report = quantize(rg.load(write_whisper(tmp_path / "whisper")), records)
    assert report.before.metric == "wer"
    assert report.before.seconds > 0
    assert "difference of wer" in report.table()


@pytest.mark.parametrize("job", JOBS)
def test_all_evaluations_have_scores(job: str) -> None:
    runner = runner_class(job)
    if hasattr(runner, "evaluate"):
        evaluation = get_type_hints(runner.evaluate)["return"]
        assert hasattr(evaluation, "scores")
        assert hasattr(evaluation, "seconds")


def test_errors_are_measured_as_they_come_about() -> None:
    model = transformer()
    errors = {x.name: x for x in calibrate(model, lambda: None)}
    assert errors["encoder.0.feed_forward.expand"].error is None
    assert 0 < errors["embedding"].error < 0.02
    assert not any(part._forward_hooks for part in model.modules())


def test_refused() -> None:
    with pytest.raises(ConfigError, match="has int8 weights already"):
        quantize(rg.load(dtype="int8"))
    with pytest.raises(ConfigError, match="max_error=-1"):
        quantize(translator(), max_error=-1)
    runner = translator()
    runner.evaluate = None  # type: ignore[assignment,method-assign]
    with pytest.raises(UnsupportedError, match="a Translator has no evaluate"):
        quantize(runner, RECORDS)


def test_a_model_without_evaluation(tmp_path: Path) -> None:
    generator = gpt2_folder(tmp_path / "gpt")
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    message = error(
        "quantize", str(generator), "--out", str(tmp_path / "q"), "--data", str(tmp_path / "texts.txt"), code=1
    )
    assert "has no evaluation" in message
    assert not (tmp_path / "q").exists()


def test_the_default_error_of_the_command() -> None:
    assert command.MAX_ERROR == compression.MAX_ERROR


def test_the_bootstrap() -> None:
    same = paired_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert same == (0, 0, 0)
    better = paired_difference([1.0, 5.0, 9.0], [2.0, 6.0, 10.0])
    assert better == (1, 1, 1)
    mixed = paired_difference(range(50), [x + (-1) ** x for x in range(50)])
    assert mixed.mean == 0
    # The mean of 50 numbers of variance 1: 1.96 standard errors to either side.
    assert mixed.low == pytest.approx(-1.96 / 50**0.5, rel=0.1)
    assert mixed.high == pytest.approx(1.96 / 50**0.5, rel=0.1)


def test_the_command(tmp_path: Path) -> None:
    translator().save(tmp_path / "full")
    (tmp_path / "valid.tsv").write_text("".join(f"{x}\t{y}\n" for x, y in RECORDS))
    words = ["quantize", str(tmp_path / "full"), "--out", str(tmp_path / "int8")]
    done = regard(*words, "--data", str(tmp_path / "valid.tsv"), "--first", "9")
    assert done.exit_code == 0, done.output
    assert "records a second" in done.stdout
    assert f"wrote {tmp_path / 'int8'}" in done.stderr
    text = "This package contains the documentation."
    lines = [
        regard("translate", text, "--model", str(tmp_path / folder), *more).stdout
        for folder, more in (("int8", []), ("full", ["--dtype", "int8"]))
    ]
    assert lines[0] == lines[1] != ""
    plain = regard(*words, "--json")
    assert json.loads(plain.stdout)["before"] is None
    assert regard("info", str(tmp_path / "int8")).exit_code == 0
