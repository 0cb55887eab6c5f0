"""`regard translate`: a line in, a line out."""

import pytest

from regard.decode.search import Beam, Greedy
from tests.checkpoints.made import SENTENCES, translator
from tests.cli.run import error, model_folder, regard, without_cut

MODEL = ("--model", str(model_folder()))


def lines(*words: str, stdin: str | bytes | None = None) -> list[str]:
    result = regard("translate", *MODEL, *words, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    assert without_cut(result.stderr) == ""
    assert result.stdout.endswith("\n") or not result.stdout
    return result.stdout.split("\n")[:-1]


def one_line(text: str) -> str:
    return " ".join(text.splitlines()).replace("\t", " ")


def test_arguments_and_standard_input() -> None:
    expected = [one_line(str(each)) for each in translator().translate(SENTENCES, search=Greedy())]
    assert lines("--greedy", *SENTENCES) == expected
    assert lines("--greedy", stdin="\n".join(SENTENCES) + "\n") == expected
    assert lines("--greedy", "--batch-size", "1", stdin="\r\n".join(SENTENCES)) == expected


def test_blank_lines_stay() -> None:
    [first, second, *_] = lines("--greedy", *SENTENCES)
    assert lines("--greedy", stdin=f"\n{SENTENCES[0]}\n\n  \n{SENTENCES[1]}\n") == ["", first, "", "", second]
    assert lines(stdin="") == []


def test_a_byte_order_mark_is_no_text() -> None:
    text = "\n".join(SENTENCES).encode()
    assert lines("--greedy", stdin=b"\xef\xbb\xbf" + text) == lines("--greedy", stdin=text)
    assert lines(stdin=b"\xef\xbb\xbf\n") == [""]
    message = error("translate", *MODEL, stdin="One.".encode("utf-16"), code=1)
    assert message.startswith("standard input is in UTF-16; expected UTF-8: iconv")


def test_lines_whose_translations_are_cut_are_named() -> None:
    def said(*words: str, stdin: str | None = None) -> str:
        return regard("translate", *MODEL, "--greedy", "--max-length", "1", *words, stdin=stdin).stderr

    more = "raise it with --max-length\n"
    assert said("One.") == f"text 1: the translation was cut off at its maximum length; {more}"
    assert said(stdin="\nOne.\n\nTwo.\n") == f"lines 2, 4: 2 translations were cut off at their maximum length; {more}"
    assert said(stdin="One.\n" * 10) == (
        f"lines 1, 2, 3, 4, 5, 6, 7, 8, ...: 10 translations were cut off at their maximum length; {more}"
    )
    assert said("--batch-size", "1", stdin="One.\n" * 9).count("line 9: ") == 1
    assert said("", " ") == ""
    see = regard("see", SENTENCES[0], *MODEL, "--greedy", "--max-length", "1").stderr
    assert see == f"the translation was cut at its greatest length; {more}"


def test_lengths() -> None:
    made, text = translator(), " ".join(SENTENCES)
    for words, settings in ((("--max-length", "5"), {"max_length": 5}), (("--whole",), {"whole": True})):
        [expected] = made.translate([text], search=Greedy(), **settings)
        assert lines("--greedy", *words, text) == [one_line(str(expected))]
    assert len(made.translate([text], search=Greedy(), whole=True)[0].pieces) == 1


def test_many_lines_come_in_order() -> None:
    texts = [SENTENCES[i % 4] for i in range(50)]
    each = lines("--greedy", *SENTENCES)
    assert lines("--greedy", "--batch-size", "2", stdin="\n".join(texts)) == [each[i % 4] for i in range(50)]


def test_a_text_of_several_lines_is_one_line() -> None:
    assert len(lines("--greedy", f"{SENTENCES[0]}\n{SENTENCES[2]}\t{SENTENCES[2]}")) == 1


def test_scores_and_n_best() -> None:
    found = translator().translate(SENTENCES[:2], search=Beam(3, n_best=2))
    expected = [
        f"{number}\t{one.score:.4f}\t{one_line(one.text)}"
        for number, each in enumerate(found, start=1)
        for one in each.candidates
    ]
    assert lines("--beam", "3", "--n-best", "2", "--scores", *SENTENCES[:2]) == expected
    assert [line.split("\t")[0] for line in lines("--n-best", "5", stdin=f"\n{SENTENCES[0]}")] == ["1", *["2"] * 5]


def test_alignment() -> None:
    made = translator()
    [found] = made.translate([SENTENCES[0]], search=Greedy())
    assert lines("--greedy", "--alignment", SENTENCES[0]) == [f"{one_line(str(found))}\t{made.align(found)}"]


def test_sampling() -> None:
    words = ("--sample", "--seed", "5", "--temperature", "0.5", "--top-k", "20", "--top-p", "0.9")
    assert lines(*words, SENTENCES[0]) == lines(*words, SENTENCES[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--greedy", "--beam", "2"), "--beam and --greedy exclude each other"),
        (("--sample", "--greedy"), "--greedy and --sample exclude each other"),
        (("--temperature", "2"), "--temperature needs --sample; this is beam search"),
        (("--greedy", "--top-k", "2"), "--top-k needs --sample; this is --greedy"),
        (("--sample", "--length-penalty", "2"), "--length-penalty needs beam search; this is --sample"),
        (("--n-best", "2", "--alignment"), "--n-best and --alignment exclude each other"),
        (("--beam", "0"), "Invalid value for '--beam': '0' is not a whole number from 1 to 1,000,000,000"),
        (("--beam", "four"), "Invalid value for '--beam': 'four' is not a whole number from 1"),
        (("--batch-size", "9" * 18), f"Invalid value for '--batch-size': '{'9' * 18}' is not a whole number from 1"),
        (("--threads", "9" * 12), f"Invalid value for '--threads': '{'9' * 12}' is not a whole number from 1 to 1,024"),
    ],
)
def test_wrong_use(words: tuple[str, ...], message: str) -> None:
    assert error("translate", *MODEL, *words, "x").startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--beam", "2", "--n-best", "3"), "n_best=3 must be at most size=2"),
        (("--sample", "--temperature", "0"), "temperature=0.0 must be above 0"),
        (("--sample", "--top-p", "1.5"), "top_p=1.5 must be a probability"),
    ],
)
def test_settings_out_of_range(words: tuple[str, ...], message: str) -> None:
    assert message in error("translate", *MODEL, *words, "x", code=1)


def test_hostile_input() -> None:
    assert "standard input:2: not UTF-8 at byte 3: " in error("translate", *MODEL, stdin=b"a\nok\xc3\n", code=1)
    assert "standard input:1: the line is longer than 1,048,576 bytes" in error(
        "translate", *MODEL, stdin=b"x" * 10_000_000, code=1
    )
    assert "text 1 is not valid Unicode" in error("translate", *MODEL, "a\udcff", code=1)
    assert len(lines("--greedy", stdin=b"\0\x1b[2J \xef\xbf\xbd\n")) == 1
