"""Folders of tokenizers as the families have them, made small, and texts with whatever may stand in one."""

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from regard.checkpoints.families import FAMILIES
from regard.checkpoints.hub_tokenizer import read_tokenizer
from regard.data.text_tokenizer import TextTokenizer
from regard.data.vocabulary_files import QWEN2_WORD
from tests.data.mixed_text import trained

PLAIN = [
    "the cat sat",
    "a new dog.",
    "Hello, World",
    "don't",
    "12 1,345",
    "\u00e9t\u00e9 \u00c9",
    "x\ny",
    "(new1)",
    "anew1b",
    "NEW1",
]
LEARNED = [text for text in PLAIN if "new" not in text.lower()]  # so that new tokens are no pieces
MARKS = [
    "[MASK]", "[mask]", "[CLS]", "[SEP]", "[PAD]", "<s>", "</s>", "<pad>", "<unk>", "<mask>", "<|endoftext|>", "<NEW>",
    "<new>", "new1", "<extra_id_0>", "<extra_id_3>", ">>fra<<", ">>xyz<<", "<|im_start|>",
]  # fmt: skip
BETWEEN = ["", " ", " ", "  ", "\n"]
NEW = "<NEW>", "new1"  # tokens that are added
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def texts(count: int = 150) -> list[str]:
    """Texts with marks and added tokens in them, the same every time."""
    draw = random.Random(7)
    parts = PLAIN + MARKS

    def text() -> str:
        return "".join(draw.choice(parts) + draw.choice(BETWEEN) for _ in range(draw.randint(1, 6)))

    return ["", " ", *MARKS, *(text() for _ in range(count))]


def write(folder: Path, family: str, **files: Any) -> Path:
    """A folder of a family; two underscores in a name are a dot, and what is no text or bytes is JSON."""
    folder.mkdir(parents=True)
    for name, content in {"config__json": {"model_type": family}, **files}.items():
        path = folder / name.replace("__", ".")
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def read(folder: Path) -> TextTokenizer:
    """Regard's tokenizer of a folder."""
    family = json.loads((folder / "config.json").read_text())["model_type"]
    tokenizer = read_tokenizer(folder, FAMILIES[family].tokenizer)
    assert tokenizer is not None
    return tokenizer


def token(content: str, special: bool = False, normalized: bool | None = None, **flags: bool) -> dict[str, Any]:
    """A token as added_tokens_decoder has it."""
    usual = {"lstrip": False, "rstrip": False, "single_word": False}
    return {
        "content": content, **usual, **flags, "normalized": not special if normalized is None else normalized,
        "special": special,
    }  # fmt: skip


def flagged(content: str, **flags: bool) -> dict[str, Any]:
    """A token as tokenizer_config.json has that of a role."""
    fields = token(content, **flags)
    fields.pop("special")
    return {"__type": "AddedToken", **fields}


@cache
def word_pieces() -> list[str]:
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    return [*marks, *letters, *".,:;!?'<>[]()/_|", *(f"##{x}" for x in letters), "the", "cat", "new", "mask"]


def word_piece_json(*added: Any, lowercase: bool = True) -> str:
    """BERT's tokenizer.json."""
    ids = {piece: i for i, piece in enumerate(word_pieces())}
    subwords = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    subwords.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    subwords.pre_tokenizer, subwords.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    subwords.add_special_tokens(word_pieces()[:5])
    subwords.add_tokens(list(added))
    subwords.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(subwords.to_str())


@cache
def byte_level(marks: tuple[str, ...], qwen2: bool = False) -> tokenizers.Tokenizer:
    """A vocabulary of GPT-2's kind, or of Qwen2's."""
    subwords = tokenizers.Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not qwen2)
    subwords.pre_tokenizer = words
    if qwen2:
        subwords.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(QWEN2_WORD), behavior="isolated")
        subwords.pre_tokenizer = pre_tokenizers.Sequence([split, words])
    subwords.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=list(marks), show_progress=False
    )
    subwords.train_from_iterator(LEARNED * 9, trainer)
    return subwords


def byte_level_files(subwords: tokenizers.Tokenizer) -> dict[str, Any]:
    """vocab.json and merges.txt."""
    model = json.loads(subwords.to_str())["model"]
    merges = "\n".join(["#version: 0.2", *map(" ".join, model["merges"])]) + "\n"
    return {"vocab__json": model["vocab"], "merges__txt": merges}


def roberta_json() -> str:
    """RoBERTa's tokenizer.json, whose mask takes the space before it."""
    subwords = tokenizers.Tokenizer.from_str(byte_level(tuple(ROBERTA)).to_str())
    subwords.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True, special=True, normalized=False)])
    subwords.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return str(subwords.to_str())


@cache
def llama_json(start: str = "<s>") -> str:
    """Llama's tokenizer.json: pieces that start with a sign for their space, or bytes; a text starts with a mark."""
    subwords = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    subwords.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    marks = ["<unk>", start, "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=marks, show_progress=False)
    subwords.train_from_iterator(LEARNED * 9, trainer)
    model = json.loads(subwords.to_str())
    model["added_tokens"] = [x for x in model["added_tokens"] if x["id"] < 3]  # bytes are pieces, not marks
    subwords = tokenizers.Tokenizer.from_str(json.dumps(model))
    subwords.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    subwords.post_processor = processors.TemplateProcessing(f"{start} $A", special_tokens=[(start, 1)])
    return str(subwords.to_str())


@cache
def spiece() -> bytes:
    """T5's spiece.model."""
    return trained(vocab_size=400, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)


@cache
def spm() -> bytes:
    """Marian's source.spm, and XLM-RoBERTa's sentencepiece.bpe.model."""
    return trained(vocab_size=400)


def size(model: bytes) -> int:
    """How many pieces a SentencePiece model has."""
    return len(sentencepiece.SentencePieceProcessor(model_proto=model))


def marian_files(*languages: str) -> dict[str, Any]:
    """source.spm, target.spm and vocab.json, with tokens of languages."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=spm())
    pieces = [processor.id_to_piece(i) for i in range(3, len(processor))]
    tokens = ["</s>", "<unk>", *languages, *pieces, "<pad>"]
    return {"source__spm": spm(), "target__spm": spm(), "vocab__json": {x: i for i, x in enumerate(tokens)}}
