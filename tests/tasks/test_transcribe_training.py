"""Fine-tuning on tones: each pitch is a letter, which a tiny model learns to write down."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import regard as rg
from regard.audio.spec_augment import spec_augment
from regard.errors import ConfigError, DataError
from regard.layers.output_projection import IGNORED
from regard.tasks.word_errors import edits, error_rate, evaluate_transcripts, normalized
from regard.train.options import TrainOptions
from regard.train.run import make_task, train
from tests.audio.sounds import sine, write
from tests.cli.run import error, regard
from tests.tasks.speech_models import write_whisper

TONES = {"a": 300.0, "b": 900.0, "c": 2700.0}
FAST: dict[str, Any] = {"task": "transcribe", "threads": 1, "precision": "float32", "device": "cpu"}


def recordings(folder: Path, count: int, *, seed: int = 0) -> Path:
    """Sounds of one to three tones, and a table of them."""
    folder.mkdir(parents=True)
    texts = [" ".join(x) for n in (1, 2, 3) for x in itertools.product(TONES, repeat=n)]
    generator = np.random.default_rng(seed)
    lines = []
    for number in range(count):
        text = texts[number % len(texts)]
        tones = [sine(0.3, TONES[letter] * generator.uniform(0.95, 1.05)) for letter in text.split()]
        samples = np.concatenate(tones)
        samples += 0.01 * generator.standard_normal(len(samples)).astype(np.float32)
        write(folder / f"{number}.wav", samples)
        lines.append(f"{number}.wav\t{text}\n")
    (folder / "calls.tsv").write_text("".join(lines), encoding="utf-8")
    return folder / "calls.tsv"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_whisper(tmp_path_factory.mktemp("whisper") / "tiny", num_mels=16, embed_dim=32)
    file = folder / "generation_config.json"
    fields = json.loads(file.read_text(encoding="utf-8"))
    del fields["begin_suppress_tokens"]  # a space is a token of its own here
    file.write_text(json.dumps(fields), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recordings(tmp_path_factory.mktemp("calls") / "train", 160)


@pytest.fixture(scope="module")
def trained(calls: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tones"
    return train(
        TrainOptions(
            files=(str(calls),),
            out=str(out),
            start=str(checkpoint),
            steps=200,
            learning_rate=5e-3,
            batch_tokens=500,
            task_settings={"language": "Dutch", "augment": False},
            label_smoothing=0.0,
            **FAST,
        )
    )


def test_learns_the_tones(trained: Path, tmp_path: Path) -> None:
    transcriber = rg.load(trained)
    assert (transcriber.default_language, transcriber.default_window) == ("nl", "auto")
    test = recordings(tmp_path / "test", 39, seed=9)
    result = regard("evaluate", str(test), "--model", str(trained), "--json")
    measured = json.loads(result.stdout)
    assert measured["utterances"] == 39
    assert measured["wer"]["percent"] < 20
    assert measured["wer"]["low"] <= measured["wer"]["percent"] <= measured["wer"]["high"]
    assert regard("transcribe", str(tmp_path / "test" / "4.wav"), "--model", str(trained)).stdout.strip() == "a b"
    assert "WER" in regard("evaluate", str(test), "--model", str(trained), "--first", "3").stdout


def test_a_folder_with_metadata(calls: Path, checkpoint: Path, tmp_path: Path) -> None:
    rows = [line.split("\t") for line in calls.read_text(encoding="utf-8").splitlines()]
    table = "".join(f"{name},{text}\n" for name, text in rows)
    (calls.parent / "metadata.csv").write_text(f"file_name,text\n{table}", encoding="utf-8")
    options = TrainOptions(files=(str(calls.parent),), out=str(tmp_path / "run"), start=str(checkpoint), **FAST)
    task = make_task(options)
    task.prepare(tmp_path / "data", lambda action, rows: None)
    assert task.counts["train"] + task.counts["valid"] == 160
    assert task.preparation.language in ("en", "it", "nl")  # detected
    assert "minutes, language" in task.summary


def test_batches(calls: Path, checkpoint: Path, tmp_path: Path) -> None:
    settings = {"language": "it", "augment": False}
    options = TrainOptions(
        files=(str(calls),), out=str(tmp_path / "run"), start=str(checkpoint), task_settings=settings, **FAST
    )
    task = make_task(options)
    task.prepare(tmp_path / "data", lambda action, rows: None)
    batch = task.batch("train", [0, 1, 2, 3])
    assert batch.inputs.shape == (4, 100, 16)
    processor = task.start.processor
    tokens = task.start.tokens
    prompt = tokens.prompt(language="it", task="transcribe", times=False)
    rows = calls.read_text(encoding="utf-8").splitlines()
    by_text = {}
    for line in rows:
        name, text = line.split("\t")
        by_text.setdefault(text, name)
    for i in range(4):
        ids = batch.labels[i][batch.labels[i] != IGNORED]
        assert ids[-1] == task.start.module.vocabulary.eos
        assert batch.targets[i, : len(prompt)].tolist() == prompt
        text = task.start.tokenizer.decode(ids[:-1].tolist())
        assert text.strip() in by_text
        # the label of a position is the target of the next one
        start = len(prompt) - 1
        assert (
            batch.labels[i, start : start + len(ids) - 1].tolist()
            == batch.targets[i, start + 1 :][: len(ids) - 1].tolist()
        )
    # padded as the runner pads: with silence
    import soundfile

    mels, _ = task.store("train").row(0)
    for line in rows:
        samples, _ = soundfile.read(calls.parent / line.split("\t")[0], dtype="float32")
        whole = processor(samples)
        if len(samples) // 160 + 2 == len(mels) and torch.allclose(
            whole[: len(mels)], torch.tensor(np.array(mels, np.float32)), atol=2e-3
        ):
            torch.testing.assert_close(batch.inputs[0, : len(whole)], whole, atol=2e-3, rtol=0)
            break
    else:
        raise AssertionError("no recording has the first row's spectrogram")


def test_spectrograms_are_masked_within_the_sound() -> None:
    x = torch.randn(6, 200, 40)
    lengths = torch.tensor([200, 150, 100, 50, 20, 1])
    masked = spec_augment(x, lengths, generator=torch.Generator().manual_seed(0))
    changed = masked != x
    assert 0.02 < float(changed.float().mean()) < 0.6
    for row, length in enumerate(lengths.tolist()):
        assert not changed[row, length:].any()
        if changed[row].any():
            values = masked[row][changed[row]]
            torch.testing.assert_close(values, x[row, :length].mean().expand_as(values))
    assert torch.equal(masked, spec_augment(x, lengths, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(x, spec_augment(x, lengths, frequency_masks=0, time_masks=0))


def test_error_rates_by_hand() -> None:
    assert edits(["the", "cat", "sat"], ["the", "cat", "sat"]) == 0
    assert edits([], ["a", "b"]) == edits(["a", "b"], []) == 2
    assert edits(["a", "x", "c", "d"], ["a", "b", "c"]) == 2
    assert edits(list("kitten"), list("sitting")) == 3
    rate = error_rate([["a", "x"], ["c"]], [["a", "b"], ["c", "d"]])
    assert rate.percent == 50.0
    assert rate.low <= 50 <= rate.high
    assert normalized("  L'été, c'est  Bon! ") == "l été c est bon"
    evaluation = evaluate_transcripts(["a b", ""], ["A, b.", "c"], [1.0, 12.0], 2.0)
    assert evaluation.wer.percent == pytest.approx(100 / 3)
    assert evaluation.exact_wer.percent == 100.0
    assert (evaluation.empty, evaluation.utterances) == (1, 2)
    assert [(one.shortest, one.longest, one.wer) for one in evaluation.buckets] == [(0, 2, 0.0), (10, 30, 100.0)]
    assert "6.5 s a second" in evaluation.table()


def test_misuse(calls: Path, checkpoint: Path, tmp_path: Path) -> None:
    def task(**options: Any) -> Any:
        given = {"files": (str(calls),), "out": str(tmp_path / "run"), "start": str(checkpoint), **FAST, **options}
        return make_task(TrainOptions(**given))

    with pytest.raises(ConfigError, match="start=None is nothing; a recognizer is trained from a speech model"):
        task(start=None)
    with pytest.raises(ConfigError, match="has no setting 'languages'; did you mean 'language'"):
        task(task_settings={"languages": "nl"})
    with pytest.raises(ConfigError, match="does not know the language 'de'"):
        task(task_settings={"language": "German"})
    with pytest.raises(DataError, match=r"metadata\.csv is missing"):
        task(files=(str(tmp_path),))
    (tmp_path / "bad.wav").write_text("no sound")
    (tmp_path / "bad.tsv").write_text(
        "".join(f"{calls.parent / name}\ta\n" for name in ("0.wav", "1.wav")) + "bad.wav\tb\n"
    )
    words = ["train", f"{tmp_path}/bad.tsv", "--task", "transcribe", "--from", str(checkpoint)]
    message = error(*words, "--task.language", "nl", "--out", f"{tmp_path}/bad", code=1)
    assert "bad.tsv:3: " in message
    assert "--skip-bad-rows" in message
