"""WordPiece vocabularies against the slow tokenizer of the transformers package, on mixed text."""

import random
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from regard.data.published_tokenizer import WORD_PIECE_ROLES, read_word_piece

legacy = pytest.importorskip("transformers.models.bert.tokenization_bert_legacy")

ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "àéîõüßçñåøÅÉ", "абвгдежзийклмн", "αβγδεζηθ", "אבגדה",
    "ابتثجح", "漢字東京都", "ひらがなカタ", "한국어말", "0123456789", ".,;:!?-—()[]\"'€$%&@#", "🙂🎉🚀",
)  # fmt: skip
SPACES = (" ", " ", " ", "  ", "\t", "\u00a0", "\u3000")


def lines(count: int) -> list[str]:
    """Mixed text, the same every time."""
    draw = random.Random(5)
    made = []
    for _ in range(count):
        words = []
        for _ in range(draw.randint(0, 9)):
            alphabet = draw.choice(ALPHABETS)
            longest = 120 if draw.random() < 0.01 else 9
            words += ["".join(draw.choices(alphabet, k=draw.randint(1, longest))), draw.choice(SPACES)]
        made.append("".join(words))
    return made


@pytest.mark.parametrize("lowercase", [True, False])
def test_word_pieces_are_those_of_the_slow_tokenizer(lowercase: bool, tmp_path: Path) -> None:
    texts = lines(10_000)
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    marks = list(WORD_PIECE_ROLES.values())
    learner.train_from_iterator(texts[:2000], trainers.WordPieceTrainer(vocab_size=900, special_tokens=marks))
    pieces = sorted(learner.get_vocab(), key=learner.get_vocab().__getitem__)
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    slow = legacy.BertTokenizerLegacy(str(path), do_lower_case=lowercase)
    ours = read_word_piece(path, WORD_PIECE_ROLES, lowercase=lowercase)
    expected = [slow.convert_tokens_to_ids(slow.tokenize(text)) for text in texts]
    assert ours.encode_batch(texts) == expected
