"""Heat maps as text: drawn by hand, and never wider than the terminal."""

import re

import pytest
import torch

from regard.lens.alignment import END, Alignment
from regard.lens.terminal import draw
from regard.lens.text import printable, shortened, width
from tests.lens.models import alignment


def small() -> Alignment:
    weights = torch.tensor([[[0.75, 0.25, 0.0], [0.0, 0.5, 0.5]]])
    return Alignment(source=["il", "nave", END], target=["ship", END], weights={"cross_attention": weights})


def test_words_across_stand_above_their_cells() -> None:
    assert draw(small().map(), columns=72, color=False).splitlines() == [
        "Attention of target to source: source words across, target words down",
        "       il  nave [end]",
        "ship   ███ ░░░░ ·····",
        "[end]  ··· ▓▓▓▓ ▓▓▓▓▓",
        "",
        "attention weight 0% ··░░▒▒▓▓██ 75%",
    ]


def test_letters_stand_under_each_other_where_the_words_do_not_fit() -> None:
    words = ["il", "nave", "x" * 40]
    seen = Alignment(source=words, target=["ship", END], weights=small().weights)
    assert draw(seen.map(), columns=40, color=False).splitlines()[2:] == [
        *["           x"] * 12,
        "         n x",
        "         a x",
        "       i v x",
        "       l e …",
        "ship   ██░░··",
        "[end]  ··▓▓▓▓",
        "",
        "attention weight 0% ··░░▒▒▓▓██ 75%",
    ]


def test_color_paints_cells_with_their_percentage() -> None:
    drawn = draw(small().map(), columns=72, color=True)
    assert re.findall(r"\033\[48;5;(\d+);38;5;\d+m([^\033]*)\033\[0m", drawn.splitlines()[2]) == [
        ("158", " 75"),
        ("30", " 25 "),
        ("235", "     "),
    ]
    assert re.sub(r"\033\[[\d;]*m", "", drawn).splitlines()[3].split() == [END, "50", "50"]


LONG = "Questo pacchetto contiene la documentazione della libreria indipendente dall'architettura , 日本語 è qui"


@pytest.mark.parametrize("columns", [40, 41, 53, 80, 200])
@pytest.mark.parametrize("color", [False, True])
def test_no_line_is_wider_than_the_terminal(columns: int, color: bool) -> None:
    seen = alignment(LONG, LONG + " e ancora alcune parole")
    for kind in seen.kinds:
        lines = re.sub(r"\033\[[\d;]*m", "", draw(seen.map(kind), columns=columns, color=color)).splitlines()
        assert max(width(line) for line in lines) <= columns
        cells = sum(line.count(shade) for line in lines[:-1] for shade in "·░▒▓█")
        assert color or cells >= seen.map(kind).weights.numel()


def test_by_default_it_fits_the_terminal_and_has_color_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    seen = alignment(LONG, "x y").map()
    assert "\033" not in draw(seen)  # pytest's output is no terminal
    assert max(map(width, draw(seen).splitlines())) <= 40
    monkeypatch.setenv("COLUMNS", "7")  # too few for any map
    assert max(map(width, draw(seen).splitlines())) <= 40
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\033" in draw(seen)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in draw(seen)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\033" not in draw(seen)


def test_words_cannot_move_the_cursor() -> None:
    seen = alignment("a\033[2Jb", "\r \x07x")
    assert not set(draw(seen.map(), color=False)) & set("\033\r\x07")
    assert printable("a\033[2Jb\u202e") == "a�[2Jb�"
    assert printable(" ") == "␣"


def test_width_is_counted_in_columns() -> None:
    assert [width(word) for word in ("abc", "日本", "e\u0301", "")] == [3, 4, 1, 0]
    assert [shortened("abcdef", n) for n in (6, 5, 1)] == ["abcdef", "abcd…", "…"]
    assert shortened("日本語", 5) == "日本…"
    assert shortened("日本語", 4) == "日…"


def test_weights_that_are_all_zero_are_drawn() -> None:
    seen = Alignment(source=["a", END], target=["x", END], weights={"cross_attention": torch.zeros(1, 2, 2)})
    assert draw(seen.map(), color=False).splitlines()[2] == "x      ··· ·····"
