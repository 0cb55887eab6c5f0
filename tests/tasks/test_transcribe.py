"""Transcription with tiny random models, against the transformers package's own decoding."""

from pathlib import Path

import numpy as np
import pytest
import torch

import regard as rg
from regard.audio.activity import EnergyGate
from regard.decode.search import Beam
from regard.errors import CheckpointError, ConfigError, DataError
from regard.tasks.speech_decoding import Fallback, Loops
from regard.tasks.transcribe import Transcriber
from tests.audio.sounds import RATE, sine, write
from tests.tasks.speech_models import POSITIONS, write_whisper

ONCE = Fallback(temperatures=(0.0,), no_speech=None)  # the search alone


def sounds(count: int = 5, seconds: float = 0.9, seed: int = 0) -> list[tuple[np.ndarray, int]]:
    """Sines of several frequencies, with noise."""
    draw = np.random.default_rng(seed)
    made = []
    for i in range(count):
        wave = sine(seconds * (0.4 + 0.6 * (i + 1) / count), 200 * (i + 1))
        made.append(((wave + 0.05 * draw.standard_normal(len(wave))).astype(np.float32), RATE))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whisper(tmp_path_factory.mktemp("whisper") / "multilingual")


@pytest.fixture(scope="module")
def model(folder: Path) -> Transcriber:
    runner: Transcriber = rg.load(folder)
    return runner


@pytest.fixture(scope="module")
def timeless(tmp_path_factory: pytest.TempPathFactory):
    """A model that writes no times, and that of transformers."""
    transformers = pytest.importorskip("transformers")
    folder = write_whisper(tmp_path_factory.mktemp("whisper") / "timeless", times=False)
    return rg.load(folder), transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def theirs(folder: Path):
    transformers = pytest.importorskip("transformers")
    return transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()


def features(model: Transcriber, sound: tuple[np.ndarray, int]) -> torch.Tensor:
    """(1, M, F)."""
    return model.processor(sound[0]).T[None]


def own_tokens(model: Transcriber, ids: list[int]) -> list[int]:
    """What was generated: without prompt, end and padding."""
    special = model.tokens
    ids = [
        i for i in ids if i not in (special.end, special.start, *special.languages.values(), *special.tasks.values())
    ]
    return [i for i in ids if i != special.no_times]


@pytest.mark.parametrize("to", [None, "en"])
def test_greedy_texts_are_those_of_transformers(timeless, to: str | None) -> None:
    model, theirs = timeless
    task = "transcribe" if to is None else "translate"
    lengths = set()
    for sound, mine in zip(sounds(), model.transcribe(sounds(), language="it", to=to, fallback=ONCE), strict=True):
        ids = theirs.generate(features(model, sound), language="it", task=task, return_timestamps=False)[0].tolist()
        [segment] = mine.segments
        assert list(segment.tokens) == own_tokens(model, ids)
        assert mine.language == "it"
        assert mine.language_probability is None
        lengths.add(len(segment.tokens))
    assert len(lengths) > 1


def test_texts_with_times_are_those_of_transformers(model: Transcriber, theirs) -> None:
    compared = 0
    results = model.transcribe(sounds(), language="it", timestamps=True, fallback=ONCE)
    for sound, mine in zip(sounds(), results, strict=True):
        result = theirs.generate(
            features(model, sound), language="it", task="transcribe", return_timestamps=True, return_segments=True
        )
        other = [own_tokens(model, x["tokens"].tolist()) for x in result["segments"][0]]
        other = [ids for ids in other if model.tokenizer.decode([i for i in ids if i < 256]).strip()]
        assert all(x.start <= x.end <= mine.info.seconds for x in mine.segments)
        assert all(x.tokens[0] >= model.tokens.first_time for x in mine.segments)
        assert [list(x.tokens) for x in mine.segments][:1] == other[:1]
        compared += len(other[:1])
    assert compared >= 3


def test_long_sounds_are_those_of_transformers(model: Transcriber, theirs) -> None:
    [(wave, _)] = sounds(1, seconds=3.7)
    inputs = model.processor(wave, pad=False).T[None]
    result = theirs.generate(
        inputs, attention_mask=torch.ones(1, inputs.shape[2]), language="it", task="transcribe",
        return_timestamps=True, return_segments=True, condition_on_prev_tokens=False,
    )  # fmt: skip
    other = [
        (own_tokens(model, x["tokens"].tolist()), float(x["start"]), float(x["end"])) for x in result["segments"][0]
    ]
    [mine] = model.transcribe([(wave, RATE)], language="it", fallback=ONCE)
    assert len(mine.segments) >= 3
    # Segments that have no text, or end where they started, are left out here.
    others = [(ids, start, end) for ids, start, end in other if any(i < model.tokens.first_time for i in ids)]
    assert [list(x.tokens) for x in mine.segments] == [ids for ids, start, end in others if start != end]


def test_beam_search_is_that_of_transformers(timeless) -> None:
    model, theirs = timeless
    for sound in sounds(3):
        output = theirs.generate(
            features(model, sound), language="it", task="transcribe", num_beams=5, return_dict_in_generate=True,
            return_segments=True,
        )  # fmt: skip
        [mine] = model.transcribe([sound], language="it", search=Beam(5, n_best=3), fallback=ONCE)
        assert list(mine.segments[0].tokens) == own_tokens(model, output["sequences"][0].tolist())
        assert len(mine.candidates) == 3
        assert mine.candidates[0].score == mine.segments[0].log_prob
        assert list(mine.candidates) == sorted(mine.candidates, key=lambda x: -x.score)


def test_the_language_is_the_most_probable(model: Transcriber, theirs) -> None:
    found = model.transcribe(sounds(), fallback=ONCE)
    for sound, mine in zip(sounds(), found, strict=True):
        [token] = theirs.detect_language(features(model, sound)).tolist()
        assert model.tokens.languages[mine.language] == token
        assert 1 / 3 <= mine.language_probability <= 1


@pytest.mark.parametrize("settings", [{}, {"timestamps": True, "words": True}, {"search": Beam(3)}, {"carry": True}])
def test_a_text_does_not_depend_on_its_batch(model: Transcriber, settings: dict) -> None:
    mixed = [*sounds(3), *sounds(1, seconds=2.5, seed=1), *sounds(1, seed=2)]
    fallback = Fallback(temperatures=(0.0, 0.7), log_prob=-0.5)  # most are sampled as well
    alone = [model.transcribe([sound], fallback=fallback, **settings)[0] for sound in mixed]
    temperatures = {segment.temperature for one in alone for segment in one.segments}
    assert temperatures == {0.7} or len(temperatures) == 2
    for size in (2, 16):
        together = model.transcribe(mixed, fallback=fallback, batch_size=size, **settings)
        for one, other in zip(together, alone, strict=True):
            assert one.text == other.text
            assert [x.tokens for x in one.segments] == [x.tokens for x in other.segments]
            words, others = ([[w[:3] for w in x.words or ()] for x in y.segments] for y in (one, other))
            assert words == others


def test_fallback_samples_what_looks_wrong(model: Transcriber) -> None:
    [greedy] = model.transcribe(sounds(1), language="it", fallback=ONCE)
    [sampled] = model.transcribe(
        sounds(1), language="it", fallback=Fallback(temperatures=(0.0, 0.9), log_prob=0.0, no_speech=None)
    )
    assert greedy.segments[0].temperature == 0
    assert sampled.segments[0].temperature == 0.9
    assert sampled.text != greedy.text
    silent = Fallback(temperatures=(0.0,), no_speech=-1.0, log_prob=0.0)
    assert model.transcribe(sounds(1), language="it", fallback=silent)[0].text == ""


def test_texts_that_repeat_themselves_are_seen() -> None:
    loops = Loops(2)
    sentences = torch.tensor([0, 1])
    stopped = [loops(sentences, torch.tensor([i % 7, i])).tolist() for i in range(100)]
    assert [repeats for repeats, _ in stopped].index(True) == 63
    assert not any(other for _, other in stopped)


def test_a_gate_leaves_out_silence_and_nothing_else(model: Transcriber) -> None:
    gate = EnergyGate(pad=0.0)
    [plain, gated] = (model.transcribe(sounds(2), language="it", fallback=ONCE, gate=g) for g in (None, gate))
    assert [[x.tokens for x in one.segments] for one in plain] == [[x.tokens for x in one.segments] for one in gated]
    nothing = (np.zeros(RATE, np.float32), RATE)
    assert model.transcribe([nothing], language="it", fallback=ONCE, gate=gate)[0].segments == ()
    [(wave, _)] = sounds(1)
    later = (np.concatenate([np.zeros(2 * RATE, np.float32), wave]), RATE)
    [result] = model.transcribe([later], language="it", fallback=ONCE, gate=gate)
    assert result.segments[0].start >= 1.9


def test_words_are_the_text_in_order_of_time(model: Transcriber) -> None:
    for one in model.transcribe(sounds(3, seconds=2.2), language="it", words=True, fallback=ONCE):
        words = [word for segment in one.segments for word in segment.words]
        assert "".join(word.text for word in words).strip() == one.text
        times = [time for word in words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= one.info.seconds + 0.02
        assert all(0 <= word.probability <= 1 for word in words)


def test_the_auto_window_is_short_for_short_sounds(tmp_path: Path) -> None:
    model = rg.load(write_whisper(tmp_path / "long", source_length=600))
    heard = []
    encode = model.module.encode
    model.module.encode = lambda inputs, lengths=None: (heard.append(inputs.shape[1]), encode(inputs, lengths))[1]
    model.transcribe(sounds(1), language="it", fallback=ONCE)
    assert heard == [1200]
    [doubted] = model.transcribe(sounds(1), language="it", window="auto", fallback=ONCE)
    assert heard[1] == 1000
    if len(heard) == 3:  # improbable: decoded again with the full window
        assert heard[2] == 1200
        assert doubted == model.transcribe(sounds(1), language="it", fallback=ONCE)[0]


def test_prompts_and_hotwords_stand_before_the_text(model: Transcriber) -> None:
    prompt = model.tokens.prompt(language="it", task="translate", times=True, before=[1, 2])
    names = ["<|startofprev|>", "<|startoftranscript|>", "<|it|>", "<|translate|>"]
    assert prompt == [model.tokenizer.id_of(names[0]), 1, 2, *(model.tokenizer.id_of(x) for x in names[1:])]
    plain, prompted, hot = (
        model.transcribe(sounds(1), language="it", fallback=ONCE, **how)[0].text
        for how in ({}, {"prompt": "abc"}, {"hotwords": "abc"})
    )
    assert plain != prompted
    assert prompted == hot


def test_models_of_english_have_no_languages(tmp_path: Path) -> None:
    model = rg.load(write_whisper(tmp_path / "en", multilingual=False))
    assert model.languages == ["en"]
    for timestamps in (None, True):
        [one] = model.transcribe(sounds(1), timestamps=timestamps, fallback=ONCE)
        assert one.language is None
    with pytest.raises(ConfigError, match="the model knows English only"):
        model.transcribe(sounds(1), language="it")


def test_saved_models_are_the_same(model: Transcriber, tmp_path: Path) -> None:
    model.save(tmp_path / "saved")
    again = rg.load(tmp_path / "saved")
    assert again.processor == model.processor
    ours, theirs = (one.transcribe(sounds(), words=True, fallback=ONCE) for one in (model, again))
    assert [one.to_plain() for one in ours] == [one.to_plain() for one in theirs]


def test_exported_models_are_those_of_transformers(timeless, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model, theirs = timeless
    rg.export_hf(model, tmp_path / "hub")
    exported = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "hub").eval()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(tmp_path / "hub")
    sound = sounds(1)[0]
    inputs = extractor(sound[0], sampling_rate=RATE, return_tensors="pt")["input_features"]
    torch.testing.assert_close(inputs, features(model, sound), rtol=0, atol=1e-5)
    how = {"language": "it", "task": "transcribe", "return_timestamps": False}
    assert torch.equal(exported.generate(inputs, **how), theirs.generate(inputs, **how))
    again = rg.load(tmp_path / "hub")
    assert again.transcribe([sound], fallback=ONCE) == model.transcribe([sound], fallback=ONCE)


def test_files_of_several_kinds_and_bad_ones(model: Transcriber, tmp_path: Path) -> None:
    [(wave, _)] = sounds(1)
    good = write(tmp_path / "good.wav", wave)
    bad = tmp_path / "bad.wav"
    bad.write_text("no sound")
    by_name, by_bytes = model.transcribe([good, good.read_bytes()], language="it", fallback=ONCE)
    assert by_name.text == by_bytes.text
    with pytest.raises(DataError, match=r"bad\.wav is no sound file"):
        model.transcribe([good, bad], language="it")
    with pytest.raises(DataError, match="must be a list"):
        model.transcribe(str(good))


def test_impossible_settings_raise(model: Transcriber, folder: Path, tmp_path: Path) -> None:
    for settings, message in (
        ({"language": "klingon"}, "language 'klingon' is unknown"),
        ({"language": "de"}, "does not know the language 'de'; it knows en, nl, it"),
        ({"to": "nl"}, "translate to English only"),
        ({"search": rg.Sample()}, "expected Greedy"),
        ({"window": "short"}, "expected 'full' or 'auto'"),
        ({"language_threshold": 2}, "expected a probability"),
    ):
        with pytest.raises(ConfigError, match=message):
            model.transcribe(sounds(1), **settings)
    with pytest.raises(ConfigError, match="temperatures="):
        Fallback(temperatures=())
    copy = write_whisper(tmp_path / "copy")
    (copy / "preprocessor_config.json").write_text('{"feature_size": 80}')
    with pytest.raises(CheckpointError, match="80 mel bands, and the model has 8; expected files of the same model"):
        rg.load(copy)
    assert model.module.config.source_length == POSITIONS
