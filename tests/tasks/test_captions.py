"""Files of transcripts."""

import itertools
import json

import pytest

from regard.audio.sound import SoundInfo
from regard.errors import ConfigError
from regard.tasks.captions import Layout, clock, written
from regard.tasks.transcript import Segment, Transcript, Word


def transcript(*texts: str, words: bool = False, seconds: float = 4.0) -> Transcript:
    """Segments of some seconds each."""
    segments = []
    for i, text in enumerate(texts):
        start = i * seconds
        split = text.split()
        timed = tuple(
            Word(f" {x}", start + j * seconds / len(split), start + (j + 0.9) * seconds / len(split), 0.5)
            for j, x in enumerate(split)
        )
        segments.append(
            Segment(
                start=start, end=start + seconds, text=f" {text}", tokens=(1,), log_prob=-0.5, no_speech=0.1,
                temperature=0.0, compression_ratio=1.0, words=timed if words else None,
            )
        )  # fmt: skip
    info = SoundInfo("a.wav", "WAV PCM_16", 16_000, 1, samples=int(16_000 * seconds * len(texts)))
    return Transcript(
        text=" ".join(texts), language="en", language_probability=0.9, segments=tuple(segments), info=info
    )


def test_the_formats() -> None:
    one = transcript("Good morning.", "Good night.")
    assert written(one, "txt") == "Good morning.\nGood night.\n"
    assert written(one, "tsv") == "start\tend\ttext\n0\t4000\tGood morning.\n4000\t8000\tGood night.\n"
    assert written(one, "srt") == (
        "1\n00:00:00,000 --> 00:00:04,000\nGood morning.\n\n2\n00:00:04,000 --> 00:00:08,000\nGood night.\n\n"
    )
    assert written(one, "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:04.000\nGood morning.\n\n00:00:04.000 --> 00:00:08.000\nGood night.\n\n"
    )
    plain = json.loads(written(transcript("Good night.", words=True), "json"))
    assert plain["text"] == "Good night."
    assert plain["segments"][0]["words"][0] == {"word": " Good", "start": 0.0, "end": 1.8, "probability": 0.5}
    with pytest.raises(ConfigError, match="did you mean 'srt'"):
        written(one, "srtt")
    assert clock(3661.0016, ",") == "01:01:01,002"


@pytest.mark.parametrize("words", [False, True])
def test_lines_are_short_few_and_lose_nothing(words: bool) -> None:
    text = "the quick brown fox jumps over the lazy dog " * 6
    layout = Layout(width=20, lines=2)
    cues = layout.cues(transcript(text.strip(), words=words, seconds=30.0))
    assert " ".join(line for cue in cues for line in cue.lines) == text.strip()
    assert all(len(line) <= 20 for cue in cues for line in cue.lines)
    assert all(len(cue.lines) <= 2 for cue in cues)
    assert all(cue.start < cue.end for cue in cues)
    assert all(one.end <= other.start for one, other in itertools.pairwise(cues))


def test_a_subtitle_stays_until_it_is_read() -> None:
    quick = transcript("A quick word", words=True, seconds=0.3)
    [cue] = Layout(speed=12.0).cues(quick)
    assert abs(cue.end - 1.0) < 1e-9
    first, second = Layout(speed=4.0).cues(transcript("A quick word", "and more", words=True, seconds=0.3))
    assert first.end == second.start == 0.3


def test_a_pause_starts_a_new_subtitle() -> None:
    [segment] = transcript("one two", words=True).segments
    apart = (Word(" one", 0.0, 0.5, 1.0), Word(" two", 2.0, 2.5, 1.0))
    one = transcript("one two")
    cues = Layout().cues(Transcript(**{**vars(one), "segments": (Segment(**{**vars(segment), "words": apart}),)}))
    assert [cue.lines for cue in cues] == [("one",), ("two",)]


def test_a_long_word_has_its_own_line() -> None:
    [cue] = Layout(width=5, lines=3).cues(transcript("a incomprehensible b"))
    assert cue.lines == ("a", "incomprehensible", "b")
    for wrong in ({"width": 0}, {"lines": 0}, {"speed": 0}):
        with pytest.raises(ConfigError, match="Layout"):
            Layout(**wrong)
