"""Files of transcripts: subtitles (SubRip, WebVTT), tables, JSON and plain text."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

from regard.attention.check import check_integer, is_number, show
from regard.errors import ConfigError, nearest
from regard.tasks.transcript import Segment, Transcript

FORMATS = ("txt", "srt", "vtt", "tsv", "json")
PAUSE = 1.0  # seconds between two words, after which a new subtitle starts


class Cue(NamedTuple):
    """A subtitle: when it is shown, in seconds, and its lines."""

    start: float
    end: float
    lines: tuple[str, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Layout:
    """How texts become subtitles.

    Args:
        width: characters of a line; a longer word has a line of its own.
        lines: of a subtitle.
        speed: characters a second that are read: a subtitle stays for as long as it takes, if the next does not come
            before.

    Raises:
        ConfigError: a value out of range.
    """

    width: int = 42
    lines: int = 2
    speed: float = 17.0

    def __post_init__(self) -> None:
        check_integer("Layout", "width", self.width, 1, " characters")
        check_integer("Layout", "lines", self.lines, 1, " lines")
        if not is_number(self.speed) or not self.speed > 0:
            raise ConfigError(f"Layout: speed={show(self.speed)}; expected characters a second, above 0")

    def cues(self, transcript: Transcript) -> list[Cue]:
        """The subtitles of a transcript, at most `lines` lines of `width` characters each.

        Args:
            transcript: with times of words, or with segments only, over which words are spread by their letters.

        Returns:
            The subtitles, in order; they do not overlap.
        """
        cues: list[Cue] = []
        for segment in transcript.segments:
            pieces: list[_Piece] = []
            for piece in _pieces(segment):
                paused = bool(pieces) and piece.start - pieces[-1].end >= PAUSE
                if pieces and (paused or len(self._wrapped([*pieces, piece])) > self.lines):
                    cues.append(self._cue(pieces))
                    pieces = []
                pieces.append(piece)
            if pieces:
                cues.append(self._cue(pieces))
        return [self._shown(cue, cues[i + 1].start if i + 1 < len(cues) else None) for i, cue in enumerate(cues)]

    def _cue(self, pieces: "list[_Piece]") -> Cue:
        return Cue(pieces[0].start, pieces[-1].end, tuple(self._wrapped(pieces)))

    def _wrapped(self, pieces: "list[_Piece]") -> list[str]:
        lines: list[str] = []
        for piece in pieces:
            if lines and len((lines[-1] + piece.text).strip()) <= self.width:
                lines[-1] += piece.text
            else:
                lines.append(piece.text)
        return [line.strip() for line in lines]

    def _shown(self, cue: Cue, following: float | None) -> Cue:
        """The subtitle, for as long as it takes to read, or until the next one."""
        needed = cue.start + sum(map(len, cue.lines)) / self.speed
        end = max(cue.end, needed)
        return cue._replace(end=end if following is None else max(cue.start, min(end, following)))


class _Piece(NamedTuple):
    text: str
    start: float
    end: float


def _pieces(segment: Segment) -> Iterator[_Piece]:
    """The words of a segment with their times, each with the space before it."""
    if segment.words is not None:
        yield from (_Piece(word.text, word.start, word.end) for word in segment.words)
        return
    words = [f" {word}" for word in segment.text.split()]
    total, done = sum(map(len, words)), 0
    for word in words:
        start, done = done, done + len(word)
        span = segment.end - segment.start
        yield _Piece(word, segment.start + span * start / total, segment.start + span * done / total)


def written(transcript: Transcript, kind: str, layout: Layout = Layout()) -> str:
    """A transcript as the content of a file.

    Args:
        transcript: the transcript.
        kind: "txt", a line for each segment; "srt" or "vtt", subtitles; "tsv", start, end (milliseconds) and text of
            each segment; "json", everything.
        layout: of subtitles.

    Returns:
        The content, which ends with a line feed.

    Raises:
        ConfigError: an unknown kind.
    """
    if kind == "txt":
        return "".join(_one_line(segment.text) + "\n" for segment in transcript.segments)
    if kind == "tsv":
        rows = (
            f"{round(one.start * 1000)}\t{round(one.end * 1000)}\t{_one_line(one.text)}\n"
            for one in transcript.segments
        )
        return "start\tend\ttext\n" + "".join(rows)
    if kind == "json":
        return json.dumps(transcript.to_plain(), ensure_ascii=False, indent=2) + "\n"
    if kind == "srt":
        cues = enumerate(layout.cues(transcript), start=1)
        return "".join(f"{number}\n{_span(cue, ',')}\n{_text(cue)}\n\n" for number, cue in cues)
    if kind == "vtt":
        cues_of_vtt = (f"{_span(cue, '.')}\n{_text(cue)}\n\n" for cue in layout.cues(transcript))
        return "WEBVTT\n\n" + "".join(cues_of_vtt)
    raise ConfigError(f"format {kind!r} is unknown; {nearest(kind, FORMATS)}")


def clock(seconds: float, mark: str) -> str:
    """A time as hours, minutes, seconds and milliseconds, such as 01:02:03,004."""
    milliseconds = round(max(0.0, seconds) * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"


def _span(cue: Cue, mark: str) -> str:
    return f"{clock(cue.start, mark)} --> {clock(cue.end, mark)}"


def _text(cue: Cue) -> str:
    return "\n".join(line.replace("-->", "->") for line in cue.lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())
