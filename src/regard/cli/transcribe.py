"""`regard transcribe`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from regard.cli.command import FILE, FOLDER, Argument, Command, Option, Suggested
from regard.cli.output import print_error
from regard.cli.shared import COUNT, SENTENCES, dtype_flag, model_flags, open_for, search_of
from regard.errors import DataError

if TYPE_CHECKING:
    from regard.decode.search import Beam, Greedy
    from regard.tasks.captions import Layout
    from regard.tasks.speech_settings import SpeechSettings
    from regard.tasks.transcribe import Transcriber
    from regard.tasks.transcript import Segment, Transcript

STANDARD_INPUT = "-"
STEM = "standard-input"  # of the files written for it
LINES = ("txt", "json")  # formats that have one line a file on standard output
SUBTITLES = ("srt", "vtt")
TIMED = (*SUBTITLES, "tsv", "json")  # formats for which the model writes times


class Output(NamedTuple):
    """Where texts go."""

    folder: Path | None
    formats: list[str]
    layout: "Layout"
    n_best: bool


def run(
    files: tuple[str, ...],
    model: str | None,
    threads: int | None,
    device: str,
    dtype: str | None,
    out: str | None,
    formats: str,
    rate: int | None,
    channels: int | None,
    width: int,
    lines: int,
    speed: float,
    batch_size: int | None,
    verbose: bool,
    **how: Any,
) -> None:
    """Transcribe sound files, or standard input ("-").

    One line of text for each file on standard output, in the order given; with --out, files of subtitles and others as
    well. A file that cannot be read gives an error message; the other files are still transcribed.
    """
    kinds = _formats(formats, out, files)
    if out is not None:
        _check_names(files)
    if rate is None and channels is not None:
        raise click.UsageError("--channels is of raw samples; give their --rate too")
    n_best = bool(how["n_best"])
    if how["length_penalty"] is not None and not (how["beam"] or n_best):
        raise click.UsageError("--length-penalty is of beam search; give --beam too")
    how["search"] = search_of(how) if how["beam"] or n_best else None
    transcriber = open_for("transcribe", model, threads, device, dtype)
    from regard.audio.decoding import RawFormat
    from regard.tasks.captions import Layout

    folder, layout = None if out is None else Path(out), Layout(width=width, lines=lines, speed=speed)
    output = Output(folder, kinds, layout, n_best=n_best)
    timed = TIMED if transcriber.writes_times else (*SUBTITLES, "tsv")  # JSON can do without
    settings = _settings(transcriber, timestamps=any(kind in timed for kind in kinds), **how)
    sounds = [sys.stdin.buffer if file == STANDARD_INPUT else file for file in files]
    raw = None if rate is None else RawFormat(rate, channels or 1)
    # The text of a single file is shown segment by segment.
    by_segment = len(files) == 1 and not output.n_best and (out is not None or kinds == ["txt"])
    on_segment = _show_segment if by_segment else None
    results = transcriber.each(sounds, settings, raw=raw, batch_size=batch_size, on_segment=on_segment)
    failed = 0
    for file, result in zip(files, results, strict=True):
        if isinstance(result, DataError):
            failed += 1
            print_error(str(result))
            continue
        if verbose:
            click.echo(_described(result), err=True)
        _write(result, output, STEM if file == STANDARD_INPUT else Path(file).stem, by_segment=by_segment)
    if failed:
        raise DataError(f"{failed:,} of {len(files):,} files could not be transcribed; see the lines above")


def _settings(
    transcriber: "Transcriber",
    *,
    timestamps: bool,
    search: "Greedy | Beam | None",
    language: str | None,
    no_fallback: bool,
    window: str | None,
    gate: bool,
    **others: Any,
) -> "SpeechSettings":
    """Settings from options; those that are not given are the model's."""
    from regard.audio.activity import EnergyGate
    from regard.decode.search import Greedy
    from regard.tasks.speech_decoding import Fallback
    from regard.tasks.speech_settings import SpeechSettings

    return SpeechSettings(
        language=transcriber.default_language if language is None else language,
        timestamps=timestamps or None,
        search=Greedy() if search is None else search,
        fallback=Fallback(temperatures=(0.0,)) if no_fallback else Fallback(),
        window=transcriber.default_window if window is None else window,  # type: ignore[arg-type]
        gate=EnergyGate() if gate else None,
        **{name: others[name] for name in ("language_threshold", "to", "words", "prompt", "hotwords", "carry")},
    )


def _write(transcript: "Transcript", output: Output, stem: str, *, by_segment: bool) -> None:
    """Write a file's text to standard output, unless that was done by segment, and to the files of the formats."""
    if by_segment:
        sys.stdout.write("\n")
    elif output.folder is None and output.formats != ["txt"]:
        _write_format(transcript, output)
    else:
        _write_text(transcript, output)
    sys.stdout.flush()
    if output.folder is not None:
        _write_files(transcript, output, output.folder / stem)


def _formats(formats: str, out: str | None, files: tuple[str, ...]) -> list[str]:
    """The formats of --format, which files or standard output can have."""
    from regard.errors import nearest
    from regard.tasks.captions import FORMATS

    kinds = [kind.strip() for kind in formats.split(",")]
    for kind in kinds:
        if kind not in FORMATS:
            raise click.UsageError(f"--format {kind!r} is unknown; {nearest(kind, FORMATS)}")
    if out is None and (len(kinds) > 1 or (len(files) > 1 and kinds[0] not in LINES)):
        raise click.UsageError(f"--format {formats} of {len(files)} files needs --out FOLDER, where they are written")
    return list(dict.fromkeys(kinds))


def _check_names(files: tuple[str, ...]) -> None:
    """UsageError for files whose outputs would have one name."""
    stems: dict[str, str] = {}
    for file in files:
        stem = STEM if file == STANDARD_INPUT else Path(file).stem
        if stem in stems:
            raise click.UsageError(f"{stems[stem]} and {file} would both be written as {stem}; rename one of them")
        stems[stem] = file


def _show_segment(number: int, segment: "Segment") -> None:
    sys.stdout.write(" ".join(segment.text.split()) + " ")
    sys.stdout.flush()


def _write_text(transcript: "Transcript", output: Output) -> None:
    if output.n_best and transcript.candidates:
        for number, one in enumerate(transcript.candidates, start=1):
            sys.stdout.write(f"{number}\t{one.score:.4f}\t{' '.join(one.text.split())}\n")
    else:
        sys.stdout.write(" ".join(transcript.text.split()) + "\n")


def _write_format(transcript: "Transcript", output: Output) -> None:
    from regard.tasks.captions import written

    if output.formats == ["json"]:
        sys.stdout.write(json.dumps(transcript.to_plain(), ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(written(transcript, output.formats[0], output.layout))


def _write_files(transcript: "Transcript", output: Output, path: Path) -> None:
    from regard.tasks.captions import written

    path.parent.mkdir(parents=True, exist_ok=True)
    for kind in output.formats:
        path.with_name(f"{path.name}.{kind}").write_text(written(transcript, kind, output.layout), encoding="utf-8")


def _described(transcript: "Transcript") -> str:
    """Format, levels, detected language and number of segments of a sound, as one line."""
    language = ""
    if transcript.language is not None:
        sure = "" if transcript.language_probability is None else f" ({transcript.language_probability:.2f})"
        language = f", language {transcript.language}{sure}"
    return f"{transcript.info}{language}, {len(transcript.segments)} segments"


command = Command(
    "transcribe",
    run,
    params=[
        Argument(
            "files",
            about='Sound files: wav, flac, ogg, opus, mp3, aiff, m4a, mp4, webm and others; "-" for standard input.',
            nargs=-1,
            required=True,
            type=FILE,
            metavar="FILE...",
        ),
        *model_flags(),
        dtype_flag(),
        Option(["--out"], type=FOLDER, metavar="FOLDER", help="Write a file of each format for each sound file."),
        Option(
            ["--format", "formats"],
            default="txt",
            show_default=True,
            metavar="NAMES",
            help="txt, srt, vtt, tsv or json, or several joined by commas.",
        ),
        Option(["--words"], is_flag=True, help="Find the times of words, for json and for subtitles."),
        Option(["--language"], metavar="CODE", help="Language that is spoken, such as it; detected by default."),
        Option(
            ["--language-threshold"],
            type=float,
            default=0.5,
            show_default=True,
            metavar="P",
            help="Probability below which a long file's language is looked for in its next windows too.",
        ),
        Option(["--to"], metavar="CODE", help="en: translate to English."),
        Option(["--prompt"], metavar="TEXT", help="Text that the sound is taken to continue, such as names in it."),
        Option(["--hotwords"], metavar="TEXT", help="The same, for every window of a long file."),
        Option(["--carry"], is_flag=True, help="Take each window to continue the text of the one before."),
        Option(["--beam"], type=COUNT, metavar="SIZE", help="Beam search with SIZE beams, instead of greedy search."),
        Option(
            ["--length-penalty"],
            type=float,
            metavar="X",
            help="Length penalty of beam search; above 1: longer outputs.  [default: 1.0]",
        ),
        Option(["--n-best"], type=COUNT, help="Write the N best texts of beam search, with their scores."),
        Option(["--no-fallback"], is_flag=True, help="Keep texts that repeat themselves or are improbable."),
        Option(
            ["--window"],
            type=Suggested("full", "auto"),
            metavar="NAME",
            help="full: the model's window; auto: 10 s for short files, and the model's where the text looks wrong.  "
            "[default: full, or as the model was fine-tuned]",
        ),
        Option(["--gate"], is_flag=True, help="Leave out stretches without sound (voice activity by energy)."),
        Option(["--rate"], type=COUNT, metavar="HZ", help="Samples a second of raw 16-bit samples without a header."),
        Option(["--channels"], type=COUNT, help="Channels of raw samples.  [default: 1]"),
        Option(["--width"], type=COUNT, default=42, show_default=True, help="Characters of a subtitle's line."),
        Option(["--lines"], type=COUNT, default=2, show_default=True, help="Lines of a subtitle."),
        Option(
            ["--speed"],
            type=float,
            default=17.0,
            show_default=True,
            metavar="X",
            help="Characters a second that are read in subtitles.",
        ),
        Option(["--batch-size"], type=SENTENCES, help="Windows per batch.  [default: 16, or fewer of a large model]"),
        Option(["-v", "--verbose"], is_flag=True, help="Say what was done to each sound, and its language."),
    ],
    examples=[
        "regard transcribe interview.mp3 --model openai/whisper-base",
        "regard transcribe *.wav --model openai/whisper-base --out captions/ --format srt,json --words",
        "cat call.wav | regard transcribe - --model openai/whisper-base --language it --to en",
    ],
)
