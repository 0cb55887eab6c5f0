"""Tokenizers from vocabulary files: `vocab.txt` of WordPiece, `vocab.json` and `merges.txt` of byte-level BPE."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from regard.data.added_tokens import mark
from regard.data.published_tokenizer import PublishedTokenizer, add_tokens, build_tokenizer

WORD_PIECE_ROLES = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}  # BERT's
# Qwen2's words: contractions, letters with one character before them, single digits, others, newlines, spaces.
QWEN2_WORD = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def read_word_piece(
    path: str | os.PathLike[str],
    roles: Mapping[str, str],
    described: Sequence[AddedToken] = (),
    named: Sequence[AddedToken] = (),
    *,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    chinese: bool = True,
) -> PublishedTokenizer:
    """Load BERT's WordPiece tokenizer from a `vocab.txt`, which has a piece on each line.

    Args:
        path: of the file.
        roles: special tokens by role; "unk", "cls" and "sep" are required.
        described: added tokens, whose flags override those of the file.
        named: tokens that are added if the file lacks them.
        lowercase: whether text is converted to lower case.
        strip_accents: whether accents are removed; None for the value of `lowercase`.
        chinese: whether Chinese characters are split.

    Returns:
        The tokenizer.

    Raises:
        CheckpointError: a file that is missing or damaged, or roles without tokens.

    Source: Devlin et al. 2018, arXiv 1810.04805, section 3.
    """

    def build() -> tokenizers.Tokenizer:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
        pieces = [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
        ids = {piece: i for i, piece in enumerate(pieces)}
        subwords = tokenizers.Tokenizer(models.WordPiece(ids, unk_token=roles["unk"]))
        subwords.normalizer = normalizers.BertNormalizer(
            lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=chinese
        )
        subwords.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        subwords.decoder = decoders.WordPiece()
        add_tokens(subwords, described, [*_marks_of(roles, ids), *named])
        cls, sep = roles["cls"], roles["sep"]
        subwords.post_processor = processors.TemplateProcessing(
            single=f"{cls}:0 $A:0 {sep}:0",
            pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
            special_tokens=[(token, subwords.token_to_id(token)) for token in (cls, sep)],
        )
        return subwords

    return build_tokenizer(path, build, roles)


def read_byte_level(
    vocabulary: str | os.PathLike[str],
    merges: str | os.PathLike[str],
    roles: Mapping[str, str],
    described: Sequence[AddedToken] = (),
    named: Sequence[AddedToken] = (),
    *,
    prefix_space: bool = False,
    qwen2: bool = False,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
) -> PublishedTokenizer:
    """Load a byte-level BPE tokenizer from `vocab.json` and `merges.txt`, such as GPT-2's, RoBERTa's or Qwen2's.

    Args:
        vocabulary: path of the file with the ids of pieces.
        merges: path of the file with merges, one on each line.
        roles: special tokens by role.
        described: added tokens, whose flags override those of the file.
        named: tokens that are added if the file lacks them.
        prefix_space: whether a space is put before a text.
        qwen2: whether texts are normalized (NFC) and split into words as in Qwen2: digits are split.
        before: roles of the special tokens before a text.
        after: roles of the special tokens after a text.

    Returns:
        The tokenizer.

    Raises:
        CheckpointError: a file that is missing or damaged, or roles without tokens.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
    """

    def build() -> tokenizers.Tokenizer:
        ids = json.loads(Path(vocabulary).read_text(encoding="utf-8"))
        lines = Path(merges).read_text(encoding="utf-8").split("\n")
        pairs = [tuple(line.split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
        subwords = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=pairs))
        words = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=not qwen2)
        subwords.pre_tokenizer = words
        if qwen2:
            subwords.normalizer = normalizers.NFC()
            split = pre_tokenizers.Split(Regex(QWEN2_WORD), behavior="isolated")
            subwords.pre_tokenizer = pre_tokenizers.Sequence([split, words])
        subwords.decoder = decoders.ByteLevel()
        add_tokens(subwords, described, [*_marks_of(roles, ids), *named])
        first, last = ([roles[role] for role in some] for some in (before, after))
        if first or last:
            subwords.post_processor = processors.TemplateProcessing(
                single=[*first, "$A", *last],
                pair=[*first, "$A", *last, *last, "$B:1", *(f"{token}:1" for token in last)],
                special_tokens=[(token, subwords.token_to_id(token)) for token in {*first, *last}],
            )
        return subwords

    return build_tokenizer(vocabulary, build, roles)


def _marks_of(roles: Mapping[str, str], ids: Mapping[str, int]) -> list[AddedToken]:
    """The special tokens of the roles that are in the vocabulary."""
    return [mark(token) for token in roles.values() if token in ids]
