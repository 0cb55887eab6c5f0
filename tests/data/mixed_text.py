"""Made-up text of many scripts with all that makes tokenizers differ, and vocabularies trained on it."""

# ruff: noqa: RUF001 letters that look like others are wanted here

import io
import random
from functools import cache
from typing import Any

SCRIPTS = (
    "abcdefghijklmnopqrstuvwxyz" * 6 + "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdeéèàùâêôïüçñ",
    "абвгдежзиклмнопрстуфхцчшщыьэюя", "αβγδεζηθικλμνξοπρστυφχψωάέή", "かきくけこさしすせそアイウエオ漢字日本語中文测试",
    "קרשתאבגדהו", "ابتثجحخدذرزسش", "हिन्दीकखगघ", "가나다라마바사", "๐กขคงจฉ",
)  # fmt: skip
ODD = (
    "😀", "👩\u200d👩\u200d👧", "🇩🇪", "ｆｕｌｌ", "ｗｉｄｅ", "１２３", "ｶﾞ", "ﾊﾟ", "①", "ﬁ", "e\u0301", "a\u0308\u0301",
    "\u1100\u1161\u11a8", "\u00a0", "\u200b", "\u3000", "\x01", "\x07", "\u0085", "…", "--------", "!!!!!!!",
    "aaaaaaaaaaaa",
    "3.1415", "https://example.com/x?y=1", "<0x41>", "\u2581", "\u2581\u2581", "½", "™", "\ufeff", "\u202e", "𝓗𝓮𝓵𝓵𝓸",
    "x" * 60, "👩\u200d🚀" * 9,
)  # fmt: skip
MARKS = ("</s>", "<unk>", "<s>", "<pad>")  # as they stand in a text, which says nothing
BETWEEN = (*[" "] * 12, "  ", "   ", "", "\t", " , ", ". ")


def lines(count: int, *, seed: int, marks: bool = True) -> list[str]:
    """Lines of 1 to 25 words and oddities; the words of a seed are those of all seeds."""
    words = random.Random(0)
    known = [["".join(words.choices(s, k=words.randint(1, 9))) for _ in range(300)] for s in SCRIPTS]
    draw = random.Random(seed)
    odd = (*ODD, *MARKS) if marks else ODD

    def part() -> str:
        if draw.random() < 0.2:
            return draw.choice(odd)
        script = draw.choice(known)
        return script[min(int(draw.expovariate(1 / 40)), len(script) - 1)]

    return ["".join(part() + draw.choice(BETWEEN) for _ in range(draw.randint(1, 25))) for _ in range(count)]


@cache
def training() -> list[str]:
    """What vocabularies are trained on."""
    return lines(3000, seed=1)


def trained(**options: Any) -> bytes:
    """A SentencePiece model, as its package trains it."""
    import sentencepiece

    model = io.BytesIO()
    usual = {"vocab_size": 1500, "character_coverage": 0.995, "minloglevel": 2, "num_threads": 1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(training()), model_writer=model, **{**usual, **options}
    )
    return model.getvalue()
