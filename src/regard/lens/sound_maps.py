"""Attention of a speech model's words over time: a page with the playable sound, a PNG, the terminal, JSON and npz."""

import base64
import html
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, final
from zipfile import BadZipFile

import numpy as np

from regard.attention.check import show
from regard.attention.engine.draw import shade
from regard.errors import CheckpointError, ConfigError
from regard.lens.fonts import covering

Array = np.ndarray[Any, Any]
COLUMNS = 60  # of the terminal
FORMAT = 1  # of saved files
WIDTH, ROW, LABEL, SPECTRUM, MARGIN, FONT_SIZE = 900, 18, 130, 120, 12, 12  # pixels of the PNG
CIVIDIS = np.array(
    [(0, 34, 78), (18, 53, 112), (59, 73, 108), (87, 93, 109), (112, 113, 115), (138, 134, 120), (165, 156, 116),
     (195, 179, 105), (225, 204, 85), (254, 232, 56)], np.float32,
)  # fmt: skip


class SpokenWord(NamedTuple):
    """A word and its time in seconds from the start of the sound."""

    text: str
    start: float
    end: float


@final
@dataclass(frozen=True, kw_only=True)
class SoundMaps:
    """What a speech model looks at in a sound as it writes each word.

    Args:
        name: of the sound.
        samples: (N,) float32 in -1..1, of the window that the model reads.
        rate: samples a second.
        mels: (F, M), log-mel spectrogram of the window, without padding.
        words: in order.
        attention: (heads, W, S): of each head and word, the mean over the word's tokens of the weights of the source
            positions. The rest of a row's weight is on the padding behind the sound.
        heads: name of each head.
        aligned: numbers of the heads whose attention gives words their times.
        start: of the window, in seconds of the sound.
        step: seconds of a source position.
        total: seconds of the whole sound; None where the window is all of it.
    """

    name: str
    samples: Array
    rate: int
    mels: Array
    words: Sequence[SpokenWord]
    attention: Array
    heads: Sequence[str]
    aligned: Sequence[int]
    start: float = 0.0
    step: float = 0.02
    total: float | None = None

    @property
    def seconds(self) -> float:
        """Length of the window."""
        return len(self.samples) / self.rate

    @property
    def note(self) -> str:
        """The stretch that is shown, of a sound that is longer; empty where all of it is shown."""
        return window_note(self.start, self.seconds, self.total)

    @property
    def text(self) -> str:
        """The words."""
        return "".join(word.text for word in self.words).strip()

    def map(self, head: int | None = None) -> Array:
        """Weights of a head.

        Args:
            head: counted from 1 in `heads`; None for the mean of the heads that give words their times.

        Returns:
            (W, S).

        Raises:
            ConfigError: a head that there is not.
        """
        if head is None:
            mean: Array = self.attention[list(self.aligned)].mean(0)
            return mean
        if type(head) is not int or not 1 <= head <= len(self.heads):
            raise ConfigError(f"head={show(head)}; expected a number from 1 to {len(self.heads)}")
        one: Array = self.attention[head - 1]
        return one

    def terminal(self, head: int | None = None) -> str:
        """A line for each word: its time, its weights over the sound, and the word.

        Args:
            head: as for `map`.
        """
        weights = self.map(head)
        edges = np.linspace(0, weights.shape[1], min(COLUMNS, weights.shape[1]) + 1).round().astype(int)
        import torch

        lines = []
        for word, row in zip(self.words, weights, strict=True):
            bins = torch.tensor([[float(row[a:b].sum()) for a, b in pairwise(edges)]])
            lines.append(f"{word.start:7.2f} {word.end:7.2f}  {shade(bins)}  {word.text.strip()}")
        return "\n".join(lines)

    def png(self, file: str | Path, head: int | None = None) -> None:
        """Write the spectrogram with the words' weights below it, on one axis of time.

        Args:
            file: its path.
            head: as for `map`.
        """
        from PIL import Image, ImageDraw

        height = 2 * MARGIN + SPECTRUM + ROW * (len(self.words) + 1)
        sheet = Image.new("RGB", (WIDTH + LABEL + 2 * MARGIN, height), "white")
        draw, left = ImageDraw.Draw(sheet), MARGIN + LABEL
        sheet.paste(Image.fromarray(self._spectrogram()).resize((WIDTH, SPECTRUM)), (left, MARGIN))
        weights = self.map(head)
        share = weights / np.maximum(weights.max(1, keepdims=True), 1e-30)
        for row, word in enumerate(self.words):
            y = MARGIN + SPECTRUM + ROW * row
            line = Image.fromarray(colors(share[row : row + 1])).resize((WIDTH, ROW - 2), Image.Resampling.NEAREST)
            sheet.paste(line, (left, y + 2))
            text = word.text.strip()[:20]
            draw.text((MARGIN, y + 1), text, fill="black", font=_font(text))
            at = [left + WIDTH * (x - self.start) / self.seconds for x in (word.start, word.end)]
            draw.rectangle((at[0], y + 2, max(at[1], at[0] + 1), y + ROW - 1), outline="white")
        for second in range(int(self.seconds) + 1):
            x = left + WIDTH * second / self.seconds
            if second % max(1, round(self.seconds / 10)) == 0:
                draw.text((x, height - ROW), f"{self.start + second:g} s", fill="black")
        sheet.save(file)

    def page(self, file: str | Path) -> None:
        """Write one HTML file for the browser, in which the sound plays and words and spectrogram are linked.

        Args:
            file: its path.
        """
        data = {
            "sound": "data:audio/flac;base64," + base64.b64encode(self._flac()).decode(),
            "picture": "data:image/png;base64," + base64.b64encode(self._png_of_spectrogram()).decode(),
            "seconds": self.seconds,
            "start": self.start,
            "step": self.step,
            "words": [[word.text.strip(), word.start, word.end] for word in self.words],
            "positions": self.attention.shape[2],
            "heads": list(self.heads),
            "aligned": list(self.aligned),
            "largest": [[round(float(x), 6) for x in rows.max(1)] for rows in self.attention],
            "attention": _bytes(self.attention),
            "note": self.note,
        }
        template = (files("regard.lens") / "web" / "sound.html").read_text(encoding="utf-8")
        values = {"title": html.escape(self.name), "data": json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")}
        for name, value in values.items():
            template = template.replace(f"{{{{{name}}}}}", value)
        Path(file).write_text(template, encoding="utf-8", errors="replace")

    def save(self, file: str | Path) -> None:
        """Write weights, words and their times, with seconds as the axis of the weights.

        Args:
            file: its path, which ends in .npz or .json.

        Raises:
            ConfigError: another name.
        """
        path = Path(file)
        plain = {
            "format": FORMAT, "name": self.name, "start": self.start, "step": self.step, "rate": self.rate,
            "total": self.total, "words": [list(word) for word in self.words], "heads": list(self.heads),
            "aligned": list(self.aligned),
        }  # fmt: skip
        arrays = {"attention": self.attention, "mels": self.mels, "samples": self.samples, "seconds": self._axis()}
        if path.suffix == ".npz":
            with path.open("wb") as stream:
                np.savez_compressed(stream, plain=np.frombuffer(json.dumps(plain).encode(), np.uint8), **arrays)
        elif path.suffix == ".json":
            # float64: a rounded float32 has 17 digits as a Python number
            lists = {name: np.round(x.astype(np.float64), 6).tolist() for name, x in arrays.items()}
            path.write_text(json.dumps({**plain, **lists}), encoding="utf-8")
        else:
            raise ConfigError(f"{path}: the name must end in .npz or .json")

    @staticmethod
    def load(file: str | Path) -> "SoundMaps":
        """Read what `save` wrote.

        Args:
            file: its path.

        Returns:
            The maps.

        Raises:
            CheckpointError: a file that `save` did not write.
        """
        path = Path(file)
        try:
            if path.suffix == ".npz":
                with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                    arrays = {name: stored[name] for name in ("attention", "mels", "samples")}
                    plain = json.loads(stored["plain"].tobytes())
            else:
                plain = json.loads(path.read_text(encoding="utf-8"))
                arrays = {name: np.array(plain[name], np.float32) for name in ("attention", "mels", "samples")}
            words = [SpokenWord(*word) for word in plain["words"]]
            names = ("name", "rate", "heads", "aligned", "start", "step")
            fields = {name: plain[name] for name in names}
            return SoundMaps(words=words, total=plain.get("total"), **arrays, **fields)
        except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise CheckpointError(f"{path} cannot be read as maps of a sound: {error}") from error

    def _axis(self) -> Array:
        """Start of each source position, in seconds of the sound."""
        axis: Array = self.start + self.step * np.arange(self.attention.shape[2])
        return axis

    def _flac(self) -> bytes:
        import soundfile

        stored = io.BytesIO()
        soundfile.write(stored, np.clip(self.samples, -1, 1), self.rate, format="FLAC", subtype="PCM_16")
        return stored.getvalue()

    def _spectrogram(self) -> Array:
        """Colors (M, F, 3) uint8, low frequencies at the bottom."""
        low, high = float(self.mels.min()), float(self.mels.max())
        return colors((self.mels.T[::-1] - low) / max(high - low, 1e-9))

    def _png_of_spectrogram(self) -> bytes:
        from PIL import Image

        stored = io.BytesIO()
        Image.fromarray(self._spectrogram()).save(stored, "PNG")
        return stored.getvalue()


def window_note(start: float, seconds: float, total: float | None) -> str:
    """Line for the reader on the stretch that is shown of a longer sound; empty of one that is shown whole."""
    if total is None or (start == 0 and seconds >= total):
        return ""
    return f"shown: {start:g} to {start + seconds:g} s of {total:.2f} s; --start chooses another stretch"


def colors(shares: Array) -> Array:
    """Colors of cividis.

    Args:
        shares: (...) from 0 to 1.

    Returns:
        (..., 3) uint8.
    """
    place = np.clip(np.nan_to_num(shares), 0, 1) * (len(CIVIDIS) - 1)
    before = np.minimum(place.astype(int), len(CIVIDIS) - 2)
    part = (place - before)[..., None]
    mixed: Array = (CIVIDIS[before] * (1 - part) + CIVIDIS[before + 1] * part).round().astype(np.uint8)
    return mixed


def _font(text: str) -> Any:
    """An installed font that has the characters of a text, as far as there is one."""
    from matplotlib.font_manager import findfont
    from PIL import ImageFont

    return ImageFont.truetype(findfont(covering([text])[0][-1]), FONT_SIZE)


def _bytes(weights: Array) -> str:
    """Rows as bytes of 0 to 255 relative to the largest weight of each, compressed by zlib, in base64."""
    share = weights / np.maximum(weights.max(-1, keepdims=True), 1e-30)
    return base64.b64encode(zlib.compress((255 * share).round().astype(np.uint8).tobytes(), 9)).decode()
