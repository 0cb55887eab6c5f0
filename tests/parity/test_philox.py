"""Random123's known answers for Philox4x32-10 (its file kat_vectors), and the same worked in Python's integers."""

import pytest
import torch

from regard.attention.dropout import keep_scale, philox

ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def seed_of(key: str) -> torch.Tensor:
    low, high = words(key)
    seed = low | high << 32
    return torch.tensor(seed - 2**64 if seed >= 2**63 else seed)


@pytest.mark.parametrize(("counter", "key", "answer"), ANSWERS)
def test_known_answers(counter: str, key: str, answer: str) -> None:
    c0, c1, c2, c3 = (torch.tensor(word) for word in words(counter))
    assert [int(word) for word in philox((c0, c1, c2, c3), seed_of(key))] == words(answer)


def by_hand(counter: list[int], key: list[int]) -> list[int]:
    """Salmon et al. 2011, section 3.3, in Python's integers."""
    for _ in range(10):
        p0, p1 = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [(p1 >> 32) ^ counter[1] ^ key[0], p1 % 2**32, (p0 >> 32) ^ counter[3] ^ key[1], p0 % 2**32]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return counter


def test_by_hand_is_known_too() -> None:
    for counter, key, answer in ANSWERS:
        assert by_hand(words(counter), words(key)) == words(answer)


def test_the_counter_is_batch_head_query_key() -> None:
    p, seed = 0.3, -987654321987654321
    key = [seed % 2**64 % 2**32, seed % 2**64 >> 32]
    found = keep_scale(p, torch.tensor(seed), 2, 3, slice(4, 6), slice(7, 12), torch.float64)
    for b in range(2):
        for h in range(3):
            for i in range(2):
                for j in range(5):
                    kept = by_hand([b, h, 4 + i, 7 + j], key)[0] >= round(p * 2**32)
                    assert found[b, h, i, j] == (1 / (1 - p) if kept else 0.0)
