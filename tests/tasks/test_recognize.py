"""Recognizers from nothing, on tones: each pitch is a letter."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import regard as rg
from regard.audio.activity import EnergyGate
from regard.audio.spectrogram import SpectrogramProcessor
from regard.errors import CheckpointError, ConfigError, DataError
from regard.layers.output_projection import IGNORED
from regard.tasks.recognize import Recognizer
from regard.tasks.registry import RECOGNIZERS
from regard.train.options import TrainOptions
from regard.train.run import make_task, train
from tests.audio.sounds import RATE, sine
from tests.cli.run import error, regard
from tests.tasks.test_transcribe_training import recordings

FAST: dict[str, Any] = {"task": "transcribe", "threads": 1, "precision": "float32", "device": "cpu"}
SMALL: dict[str, dict[str, Any]] = {
    "listener": {
        "num_mels": 16, "hidden_dim": 32, "embed_dim": 16, "align_dim": 16, "encoder_layers": 2,
        "attention_kind": "location", "kernel_size": 5,
    },
    "speech-transformer": {
        "num_mels": 16, "channels": 4, "embed_dim": 16, "num_heads": 2, "ffn_dim": 32, "encoder_layers": 1,
        "decoder_layers": 1,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recordings(tmp_path_factory.mktemp("calls") / "train", 80)


@pytest.fixture(scope="module", params=RECOGNIZERS)
def trained(request: pytest.FixtureRequest, calls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps."""
    return train(
        TrainOptions(
            files=(str(calls),), out=str(tmp_path_factory.mktemp("runs") / request.param), model=request.param,
            steps=6, batch_tokens=200, model_settings=SMALL[request.param], **FAST,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def runner(trained: Path) -> Recognizer:
    """The model with weights that make it write something."""
    recognizer = rg.load(trained)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in recognizer.module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return recognizer


def sounds(count: int = 5) -> list[tuple[np.ndarray, int]]:
    """Of 0.2 s, 0.5 s and so on."""
    draw = np.random.default_rng(0)
    waves = [sine(0.2 + 0.3 * i, 300.0 * (i + 1)) for i in range(count)]
    return [((x + 0.01 * draw.standard_normal(len(x))).astype(np.float32), RATE) for x in waves]


def test_trains_saves_loads_and_transcribes(trained: Path, calls: Path) -> None:
    recognizer = rg.load(trained)
    assert isinstance(recognizer, Recognizer)
    assert recognizer.processor == SpectrogramProcessor(num_mels=16)
    assert recognizer.tokenizer.decode(recognizer.tokenizer.encode("a b c")) == "a b c"
    files = [str(calls.parent / f"{i}.wav") for i in range(3)]
    lines = regard("transcribe", *files, "--model", str(trained), "--beam", "2").stdout.splitlines()
    texts = recognizer.transcribe(files, search=rg.Beam(2))
    assert lines == [" ".join(str(text).split()) for text in texts]
    measured = json.loads(regard("evaluate", str(calls), "--model", str(trained), "--first", "5", "--json").stdout)
    assert measured["utterances"] == 5
    assert measured["wer"]["percent"] > 0
    assert regard("info", str(trained)).exit_code == 0


def test_a_text_does_not_depend_on_its_batch(runner: Recognizer) -> None:
    alone = [runner.transcribe([sound])[0] for sound in sounds()]
    assert any(one.text for one in alone)
    for size in (2, 16):
        for one, other in zip(runner.transcribe(sounds(), batch_size=size), alone, strict=True):
            assert one.text == other.text
            assert [x.tokens for x in one.segments] == [x.tokens for x in other.segments]
            for x, y in zip(one.segments, other.segments, strict=True):
                assert x.log_prob == pytest.approx(y.log_prob, abs=1e-5)


def test_saved_models_are_the_same(runner: Recognizer, tmp_path: Path) -> None:
    runner.save(tmp_path / "saved")
    again = rg.load(tmp_path / "saved")
    assert again.processor == runner.processor
    ours, theirs = ([x.to_plain() for x in one.transcribe(sounds())] for one in (runner, again))
    assert ours == theirs
    path = tmp_path / "saved" / "preprocessor_config.json"
    path.write_text(json.dumps({"num_mels": 80}))
    with pytest.raises(CheckpointError, match="80 mel bands, and the model has 16; expected files of the same model"):
        rg.load(tmp_path / "saved")
    path.write_text(json.dumps({"num_mels": 16, "mean": [0.0] * 16}))
    with pytest.raises(CheckpointError, match="deviation has none of num_mels=16 bands"):
        rg.load(tmp_path / "saved")


def test_a_gate_splits_at_pauses(runner: Recognizer) -> None:
    [(first, _), (second, _)] = sounds(2)
    pause = np.zeros(RATE, np.float32)
    sound = (np.concatenate([pause, first, pause, second, pause]), RATE)
    gate = EnergyGate(pad=0.0)
    [whole] = runner.transcribe([sound])
    [split] = runner.transcribe([sound], gate=gate, timestamps=True)
    assert len(whole.segments) <= 1
    spans = [(1.0, 1.2), (2.2, 2.7)]
    for segment in split.segments:
        assert any(abs(segment.start - a) < 0.02 and abs(segment.end - b) < 0.02 for a, b in spans)
    assert split.text == " ".join(segment.text.strip() for segment in split.segments)
    assert runner.transcribe([(pause, RATE)], gate=gate)[0].segments == ()


def test_long_sounds_are_refused_or_split(runner: Recognizer) -> None:
    draw = np.random.default_rng(0)
    noise = 0.1 * draw.standard_normal(61 * RATE).astype(np.float32)
    with pytest.raises(DataError, match=r"lasts 61\.0 s, and a .* reads at most 60 s at once; give a gate"):
        runner.transcribe([(noise, RATE)])
    with pytest.raises(DataError, match=r"has a stretch without a pause of 61\.0 s"):
        runner.transcribe([(noise, RATE)], gate=EnergyGate())
    noise[30 * RATE : 31 * RATE] = 0
    [split] = runner.transcribe([(noise, RATE)], gate=EnergyGate())
    assert split.info.seconds == 61


def test_what_it_cannot_do_is_told(runner: Recognizer, trained: Path, calls: Path) -> None:
    name = trained.name
    for settings, message in (
        ({"language": "it"}, f"language='it': a {name} that was trained from nothing has no such setting"),
        ({"to": "en"}, "to='en'"),
        ({"words": True}, "words=True"),
        ({"prompt": "Anna"}, "prompt='Anna'"),
        ({"timestamps": True}, f"a {name} that was trained from nothing writes no times"),
        ({"window": "auto"}, f"window='auto': a {name} has no window"),
    ):
        with pytest.raises(ConfigError, match=message):
            runner.transcribe(sounds(1), **settings)
    file = str(calls.parent / "0.wav")
    model = ["--model", str(trained)]
    assert "has no such setting" in error("transcribe", file, *model, "--language", "it", code=1)
    assert "writes no times" in error("transcribe", file, *model, "--format", "srt", code=1)
    plain = json.loads(regard("transcribe", file, *model, "--format", "json").stdout)
    assert plain["language"] is None
    assert regard("transcribe", file, *model, "--format", "srt", "--gate").exit_code == 0


def make(calls: Path, folder: Path, **options: Any) -> Any:
    how = {"files": (str(calls),), "out": str(folder / "run"), **FAST, **options}
    task = make_task(TrainOptions(**how))
    task.prepare(folder / "data", lambda action, rows: None)
    return task


def test_batches(calls: Path, tmp_path: Path) -> None:
    settings = {"augment": False, "normalization": "corpus"}
    task = make(calls, tmp_path, model="listener", model_settings=SMALL["listener"], task_settings=settings)
    assert "characters" in task.summary
    assert task.notes == []
    batch = task.batch("train", [0, 1, 2, 3])
    texts = {line.split("\t")[1] for line in calls.read_text(encoding="utf-8").splitlines()}
    for i in range(4):
        ids = batch.labels[i][batch.labels[i] != IGNORED]
        assert ids[-1] == task.data.processor.eos
        assert task.data.processor.decode(ids[:-1].tolist()) in texts
        assert batch.targets[i, : len(ids)].tolist() == [task.data.processor.bos, *ids[:-1].tolist()]
        assert not batch.inputs[i, batch.lengths[i] :].any()
    store = task.store("train")
    frames = np.concatenate([store.row(i)[0] for i in range(len(store))]).astype(np.float32)
    np.testing.assert_allclose(frames.mean(0), 0, atol=0.1)  # of the corpus, of which some are held out
    np.testing.assert_allclose(frames.std(0), 1, atol=0.1)
    other = make(calls, tmp_path / "other", model="listener", model_settings=SMALL["listener"])
    mels = np.array(other.store("train").row(0)[0], np.float32)
    assert abs(mels.mean()) < 1e-3
    assert mels.std() == pytest.approx(1, abs=1e-3)
    masked = other.batch("train", range(8)).inputs
    assert not torch.equal(masked, other.batch("valid", range(4)).inputs[:8])


def test_utterances_too_short_for_ctc_are_counted(calls: Path, tmp_path: Path) -> None:
    rows = [line.split("\t") for line in calls.read_text(encoding="utf-8").splitlines()]
    table = "".join(f"{calls.parent / name}\t{'aabb' * 20}\n" for name, _ in rows[:40])
    (tmp_path / "long.tsv").write_text(table, encoding="utf-8")
    task = make(tmp_path / "long.tsv", tmp_path, model="listener", model_settings=SMALL["listener"])
    [note] = task.notes
    assert note.startswith(f"{len(task.store('train'))} of {len(task.store('train'))} utterances are too short for CTC")
    loss = task.loss(task.build(), task.batch("train", [0, 1]))
    assert loss.minimized.isfinite()


def test_subwords_and_fine_tuning(calls: Path, trained: Path, tmp_path: Path) -> None:
    task = make(calls, tmp_path, model=trained.name, model_settings=SMALL[trained.name], vocab_size=300)
    assert "subwords" in task.summary
    assert task.data.processor.size <= 300
    more = train(
        TrainOptions(
            files=(str(calls),), out=str(tmp_path / "more"), start=str(trained), steps=1, batch_tokens=100, **FAST
        )
    )
    assert rg.load(more).tokenizer.fingerprint == rg.load(trained).tokenizer.fingerprint


def test_misuse(calls: Path, tmp_path: Path) -> None:
    def task(**options: Any) -> Any:
        return make_task(TrainOptions(files=(str(calls),), out=str(tmp_path / "run"), **{**FAST, **options}))

    with pytest.raises(ConfigError, match="has no setting 'language'"):
        task(model="listener", task_settings={"language": "nl"})
    with pytest.raises(ConfigError, match="normalization='speaker' is unknown; expected utterance or corpus"):
        task(model="listener", task_settings={"normalization": "speaker"})
    with pytest.raises(ConfigError, match=r"augment=1 must be true or false"):
        task(model="listener", task_settings={"augment": 1})
    with pytest.raises(ConfigError, match="model='lisener' is no recognizer; did you mean 'listener'"):
        task(task="recognize", model="lisener")
    with pytest.raises(ConfigError, match="size='base': the task 'recognize' has no such option"):
        task(model="listener", size="base")
    with pytest.raises(ConfigError, match="or from nothing with --model listener"):
        task()
    with pytest.raises(ConfigError, match="listener has no field 'hiden_dim'; did you mean 'hidden_dim'"):
        task(model="listener", model_settings={"hiden_dim": 3})
    with pytest.raises(DataError, match="must be a list"):
        Recognizer.transcribe(None, "a.wav")
    with pytest.raises(ConfigError, match="unknown settings chunks"):
        SpectrogramProcessor.from_plain({"chunks": 3})


def test_where_each_word_was_heard(runner: Recognizer, tmp_path: Path) -> None:
    sound = sine(0.8, 300.0).astype(np.float32)
    maps = runner.see((sound, RATE))
    [transcript] = runner.transcribe([(sound, RATE)])
    assert maps.text == str(transcript)
    reduction = runner.module.config.reduction
    positions = -(-80 // reduction)
    assert maps.attention.shape == (len(maps.heads), len(maps.words), positions)
    assert maps.step == pytest.approx(0.8 / positions)
    np.testing.assert_allclose(maps.attention.sum(2), 1, atol=1e-4)
    assert maps.heads[0] == "layer 1, head 1"
    for word in maps.words:
        assert 0 <= word.start <= word.end <= 0.8
    maps.page(tmp_path / "page.html")
    assert runner.see((sound, RATE), start=0.4).seconds == pytest.approx(0.4)
    with pytest.raises(ConfigError, match="start=2; expected seconds in the sound"):
        runner.see((sound, RATE), start=2)
