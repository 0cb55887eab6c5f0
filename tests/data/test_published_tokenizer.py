"""WordPiece vocabularies against the slow tokenizer of the transformers package, byte-level ones against the paper's
algorithm, on mixed text."""

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from regard.data.vocabulary_files import WORD_PIECE_ROLES, read_byte_level, read_word_piece
from tests.data.mixed_text import lines as mixed_lines

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
    legacy = pytest.importorskip("transformers.models.bert.tokenization_bert_legacy")
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


# What a word is to GPT-2: its contractions, then letters, numbers or signs with a space before them, then spaces.
WORD = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def byte_letters() -> dict[int, str]:
    """A letter for each byte: itself where it can be seen, else the next of those above all bytes."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    unseen = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + i) for i, byte in enumerate(unseen)}


def merged(word: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """The pieces of a word: of all neighbors, those of the earliest merge are joined, again and again."""
    while len(word) > 1:
        best = min(pairwise(word), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        i, joined = 0, []
        while i < len(word):
            step = 2 if tuple(word[i : i + 2]) == best else 1
            joined.append("".join(word[i : i + step]))
            i += step
        word = joined
    return word


@pytest.mark.parametrize("prefix_space", [False, True])
def test_byte_level_pieces_are_those_of_the_papers_algorithm(prefix_space: bool, tmp_path: Path) -> None:
    """Radford et al. 2019, section 2.2: bytes, merged within words by rank (Sennrich et al. 2015, section 3.2)."""
    words = pytest.importorskip("regex").compile(WORD)
    texts = [*lines(5_000), *mixed_lines(5_000, seed=3, marks=False)]
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(texts[::5], trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet))
    model = json.loads(learner.to_str())["model"]
    vocabulary, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    vocabulary.write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges.write_text("\n".join(["#version: 0.2", *map(" ".join, model["merges"])]), encoding="utf-8")
    ours = read_byte_level(vocabulary, merges, {}, prefix_space=prefix_space)

    letters = byte_letters()
    ranks = {(a, b): rank for rank, (a, b) in enumerate(model["merges"])}
    known: dict[str, list[int]] = {}

    def ids(word: str) -> list[int]:
        if word not in known:
            pieces = merged([letters[byte] for byte in word.encode()], ranks)
            known[word] = [model["vocab"][piece] for piece in pieces]
        return known[word]

    # A space before each text, unless one is there, is not of the paper; it is what the tokenizers package means by it.
    spaced = [f" {text}" if prefix_space and text and text[0] != " " else text for text in texts]
    found = ours.encode_batch(texts)
    assert found == [[i for word in words.findall(text) for i in ids(word)] for text in spaced]
    assert ours.decode_batch(found) == spaced
