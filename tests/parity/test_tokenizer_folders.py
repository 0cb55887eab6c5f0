"""Folders of tokenizers, as the transformers package reads them: roles, and ids of texts with marks in them.

Left out, since the two differ on purpose: what looks like a single word to `MarianTokenizer` (words between spaces, and
not between signs), equal sums of a unigram model (`transformers` adds them in float64), and Llama's tokenizer.model.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from regard.checkpoints.families import FAMILIES
from regard.data.text_tokenizer import ROLES
from tests.parity import tokenizer_folders as made
from tests.parity.tokenizer_folders import NEW, flagged, token

transformers = pytest.importorskip("transformers")

Folder = Callable[[], tuple[str, dict[str, Any]]]  # the family and the files
NEW_TOKEN, NEW_WORD = NEW


def config(**fields: Any) -> dict[str, Any]:
    return {"tokenizer_config__json": fields}


def special_map(**fields: Any) -> dict[str, Any]:
    return {"special_tokens_map__json": fields}


def without_type(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in fields.items() if name != "__type"}


def bert(with_json: bool, family: str = "bert", **files: Any) -> Folder:
    def files_of() -> tuple[str, dict[str, Any]]:
        vocabulary = {"vocab__txt": "\n".join(made.word_pieces()) + "\n"}
        return family, {**vocabulary, **({"tokenizer__json": made.word_piece_json()} if with_json else {}), **files}

    return files_of


def level(family: str, marks: list[str], with_json: bool | str, qwen2: bool = False, **files: Any) -> Folder:
    def files_of() -> tuple[str, dict[str, Any]]:
        subwords = made.byte_level(tuple(marks), qwen2)
        text = with_json if isinstance(with_json, str) else str(subwords.to_str())
        return family, {**made.byte_level_files(subwords), **({"tokenizer__json": text} if with_json else {}), **files}

    return files_of


def alone(family: str, **files: Any) -> Folder:
    return lambda: (family, {name: x() if callable(x) else x for name, x in files.items()})


def beside(first: int, *marks: str, **flags: bool) -> dict[str, Any]:
    """added_tokens_decoder: marks from 0 on, and two new tokens from `first` on, of which the first has the flags."""
    described = {str(i): token(mark, special=True) for i, mark in enumerate(marks)}
    return described | {str(first): token(NEW_TOKEN, **flags), str(first + 1): token(NEW_WORD, single_word=True)}


END = "<|endoftext|>"
BERT_MARKS, BERT_SIZE = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], len(made.word_pieces())
T5_SIZE, MARIAN_SIZE = 400, 400 - 3 + 3 + 2
EXTRA = [f"<extra_id_{i}>" for i in range(100)]


def t5_beside(**flags: bool) -> dict[str, Any]:
    marks = {str(i): token(mark, special=True) for i, mark in enumerate(["<pad>", "</s>", "<unk>"])}
    extra = {str(T5_SIZE + 99 - i): token(name, special=True) for i, name in enumerate(EXTRA)}
    new = {str(T5_SIZE + 100): token(NEW_TOKEN, **flags), str(T5_SIZE + 101): token(NEW_WORD, single_word=True)}
    return {**marks, **extra, **new}


def folders() -> Iterator[tuple[str, Folder]]:
    for j in (False, True):
        of = f"bert, json={j}: "
        yield of + "no word of roles", bert(j)
        yield of + "as on the hub", bert(j, **config(do_lower_case=True, model_max_length=512))
        yield of + "one role", bert(j, **config(pad_token="[PAD]"))
        yield of + "no mask", bert(j, **config(mask_token=None))
        yield of + "cased", bert(j, **config(do_lower_case=False))
        yield of + "accents", bert(j, **config(do_lower_case=False, strip_accents=True, tokenize_chinese_chars=False))
        yield of + "a mask with flags", bert(j, **config(mask_token=flagged("[MASK]", lstrip=True)))
        yield (
            of + "a map with flags",
            bert(j, **special_map(mask_token=without_type(flagged("[MASK]", lstrip=True, normalized=False)))),
        )
        yield of + "the map goes first", bert(j, **config(mask_token="[x]"), **special_map(mask_token="[MASK]"))
        yield of + "roles without tokens", bert(j, **config(bos_token="<s>", eos_token="</s>", mask_token="<m>"))
        yield of + "added_tokens.json", bert(j, added_tokens__json={NEW_TOKEN: BERT_SIZE, NEW_WORD: BERT_SIZE + 1})
        yield of + "more marks", bert(j, **config(additional_special_tokens=[*NEW]))
        yield of + "more marks by name", bert(j, **config(extra_special_tokens={"image_token": NEW_TOKEN}))
        yield of + "a role of its own", bert(j, **config(image_token=NEW_TOKEN))
        for flags in ({}, {"lstrip": True}, {"rstrip": True, "normalized": False}, {"single_word": True}):
            described = beside(BERT_SIZE, *BERT_MARKS, **flags)
            yield f"{of}{flags}", bert(j, **config(added_tokens_decoder=described, mask_token="[MASK]"))
        yield of + "distilbert", bert(j, "distilbert", **config(tokenizer_class="DistilBertTokenizer"))
    own = made.word_piece_json(
        AddedToken(NEW_TOKEN, lstrip=True, normalized=False), AddedToken(NEW_WORD, single_word=True)
    )
    for kind in ("BertTokenizerFast", "PreTrainedTokenizerFast"):
        lower = config(do_lower_case=True, tokenizer_class=kind)
        json_alone = made.word_piece_json(lowercase=False)
        yield f"bert: {kind}, lower case said", alone("bert", tokenizer__json=json_alone, **lower)
    yield "bert: tokens of tokenizer.json", alone("bert", tokenizer__json=own)
    described = beside(BERT_SIZE, *BERT_MARKS, rstrip=True)
    yield (
        "bert: other flags than in tokenizer.json",
        alone("bert", tokenizer__json=own, **config(added_tokens_decoder=described)),
    )
    for j in (False, made.roberta_json()):
        of = f"roberta, json={bool(j)}: "
        yield of + "no word of roles", level("roberta", made.ROBERTA, j)
        yield (
            of + "a mask with flags",
            level("roberta", made.ROBERTA, j, **config(mask_token=flagged("<mask>", lstrip=True))),
        )
        yield (
            of + "a space first",
            level("roberta", made.ROBERTA, j, **config(add_prefix_space=True, do_lower_case=True)),
        )
        described = beside(
            made.byte_level(tuple(made.ROBERTA)).get_vocab_size(),
            *made.ROBERTA,
            lstrip=True,
            rstrip=True,
            normalized=False,
        )
        yield of + "added", level("roberta", made.ROBERTA, j, **config(added_tokens_decoder=described))
    for j in (False, True):
        of = f"gpt2, json={j}: "
        yield of + "no word of roles", level("gpt2", [END], j)
        yield of + "bos first", level("gpt2", [END], j, **config(add_bos_token=True))
        yield of + "padding added", level("gpt2", [END], j, **special_map(pad_token="[PAD]"))
        yield (
            of + "added",
            level(
                "gpt2", [END], j, **config(added_tokens_decoder=beside(made.byte_level((END,)).get_vocab_size(), END))
            ),
        )
        of = f"qwen2, json={j}: "
        yield of + "no word of roles", level("qwen2", [END], j, qwen2=True)
        first = made.byte_level((END,), qwen2=True).get_vocab_size()
        chat = {str(first + i): token(x, special=True) for i, x in enumerate(("<|im_start|>", "<|im_end|>"))}
        said = {
            "add_prefix_space": False, "added_tokens_decoder": chat, "additional_special_tokens": ["<|im_start|>"],
            "bos_token": None, "chat_template": "x", "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>",
            "errors": "replace", "model_max_length": 32768, "pad_token": END, "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
        }  # fmt: skip
        yield of + "as on the hub", level("qwen2", [END], j, qwen2=True, **config(**said))
    for family in ("llama", "mistral"):
        of = f"{family}: "
        yield of + "no word of roles", alone(family, tokenizer__json=made.llama_json)
        said = {
            "add_bos_token": True, "add_eos_token": False, "bos_token": flagged("<s>", normalized=True),
            "eos_token": flagged("</s>", normalized=True), "unk_token": flagged("<unk>", normalized=True),
            "pad_token": None, "legacy": False, "model_max_length": 10**30, "padding_side": "right",
            "sp_model_kwargs": {}, "clean_up_tokenization_spaces": False, "tokenizer_class": "LlamaTokenizer",
            "use_default_system_prompt": False, "spaces_between_special_tokens": False, "truncation_side": "left",
        }  # fmt: skip
        yield of + "as on the hub", alone(family, tokenizer__json=made.llama_json, **config(**said))
        described = beside(
            len(json.loads(made.llama_json())["model"]["vocab"]), "<unk>", "<s>", "</s>", normalized=False
        )
        yield of + "added", alone(family, tokenizer__json=made.llama_json, **config(added_tokens_decoder=described))
    yield "xlm-roberta: no word of roles", alone("xlm-roberta", sentencepiece__bpe__model=made.spm)
    mask = config(
        mask_token=flagged("<mask>", lstrip=True), model_max_length=512, tokenizer_class="XLMRobertaTokenizerFast"
    )
    yield "xlm-roberta: a mask with flags", alone("xlm-roberta", sentencepiece__bpe__model=made.spm, **mask)
    yield "bert: of XLM-RoBERTa's class", alone("bert", sentencepiece__bpe__model=made.spm, **mask)
    yield "t5: no word of roles", alone("t5", spiece__model=made.spiece)
    said = {
        "additional_special_tokens": EXTRA, "eos_token": "</s>", "extra_ids": 100, "model_max_length": 512,
        "pad_token": "<pad>", "sp_model_kwargs": {}, "special_tokens_map_file": None, "unk_token": "<unk>",
        "tokenizer_class": "T5Tokenizer",
    }  # fmt: skip
    yield "t5: as on the hub", alone("t5", spiece__model=made.spiece, **config(**said))
    yield "t5: fewer of its marks", alone("t5", spiece__model=made.spiece, **config(extra_ids=5))
    yield "t5: a role without a token", alone("t5", spiece__model=made.spiece, **config(extra_ids=5, bos_token="<s>"))
    yield "t5: added_tokens.json", alone("t5", spiece__model=made.spiece, added_tokens__json={NEW_TOKEN: T5_SIZE + 100})
    for flags in ({}, {"lstrip": True, "rstrip": True}, {"normalized": False}):
        yield f"t5: {flags}", alone(
            "t5", spiece__model=made.spiece,
            **config(additional_special_tokens=EXTRA, added_tokens_decoder=t5_beside(**flags)),
        )  # fmt: skip
    yield "marian: no word of roles", lambda: ("marian", made.marian_files())
    yield "marian: languages", lambda: ("marian", made.marian_files(">>fra<<", ">>deu<<"))
    hub = config(source_lang="en", target_lang="fr", model_max_length=512, separate_vocabs=False, sp_model_kwargs={})
    yield "marian: as on the hub", lambda: ("marian", {**made.marian_files(">>fra<<"), **hub})
    described = {
        "0": token("</s>", special=True), "1": token("<unk>", special=True),
        str(MARIAN_SIZE - 1): token("<pad>", special=True),
        str(MARIAN_SIZE): token(NEW_TOKEN, lstrip=True, rstrip=True),
    }  # fmt: skip
    languages = made.marian_files(">>fra<<", ">>deu<<")
    yield "marian: added", lambda: ("marian", {**languages, **config(added_tokens_decoder=described)})


FOLDERS = dict(folders())
TEXTS = made.texts()


def theirs(folder: Path) -> Any:
    with warnings.catch_warnings(action="ignore"):  # that sacremoses is missing, on which no id depends
        return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", FOLDERS)
def test_roles_and_ids_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """Of the folder; of the folder as transformers saves it again; and as regard does, for itself and for export."""
    family, files = FOLDERS[name]()
    folder = made.write(tmp_path / "folder", family, **files)
    other, ours = theirs(folder), made.read(folder)
    roles = {role: text for role in ROLES if (text := getattr(other, f"{role}_token")) is not None}
    if type(other).__name__ == "TokenizersBackend":  # whose class has no usual roles, as the family has
        roles = {**ours.roles, **roles}
    assert ours.roles == roles
    ids = [other(text).input_ids for text in TEXTS]
    assert ours.encode_batch(TEXTS, marks=True) == ids
    assert ours.size == len(other)

    with warnings.catch_warnings(action="ignore"):
        other.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert made.read(tmp_path / "theirs").encode_batch(TEXTS, marks=True) == ids

    path = tmp_path / "tokenizer.json"
    ours.save(path)
    again = type(ours).load(path, ours.roles) if ours.kind == "published" else type(ours).load(path)
    assert again.encode_batch(TEXTS, marks=True) == ids

    exported = made.write(tmp_path / "exported", family)
    for file, content in ours.files(max_length=512).items():
        (exported / file).write_bytes(content)
    assert made.read(exported).encode_batch(TEXTS, marks=True) == ids
    if name.endswith(("added", "{'lstrip': True}", "flags")):
        assert [theirs(exported)(text).input_ids for text in TEXTS] == ids


@pytest.mark.parametrize("clean_up", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "t5", "marian"])
def test_decoded_text_is_that_of_transformers(family: str, clean_up: bool, tmp_path: Path) -> None:
    """Also where spaces before punctuation go, which they never do after byte-pair encoding."""
    new = {"clean_up_tokenization_spaces": clean_up, "additional_special_tokens": ["<more>"]}
    if family == "t5":  # whose <extra_id_0> regard shows, and transformers leaves out as a mark
        new = {"clean_up_tokenization_spaces": clean_up, "extra_ids": 0, "additional_special_tokens": []}
    of_family = {
        "gpt2": level("gpt2", [END], False, **config(**new)),
        "llama": alone("llama", tokenizer__json=made.llama_json, **config(**new)),
        "qwen2": level("qwen2", [END], False, qwen2=True, **config(**new)),
        "t5": alone("t5", spiece__model=made.spiece, **config(**new)),
        "marian": lambda: ("marian", {**made.marian_files(">>fra<<"), **config(**new)}),
    }
    _, files = of_family[family]()
    folder = made.write(tmp_path / "folder", family, **files)
    other, ours = theirs(folder), made.read(folder)
    texts = [*TEXTS, "a , b . c ! d ? it 's I 'm do n't", "the cat sat . a <more> b"]
    ids = [other(text).input_ids for text in texts]
    decoded = [other.decode(some, skip_special_tokens=True) for some in ids]
    if family in ("t5", "marian"):  # whose texts regard strips
        decoded = [text.strip() for text in decoded]
    assert ours.decode_batch(ids) == decoded


def test_every_family_is_here() -> None:
    """But those with the tokenizer of another family, and Whisper, whose texts are compared with its model."""
    of_texts = {name for name, family in FAMILIES.items() if family.tokenizer}
    tested = {name.partition(",")[0].partition(":")[0] for name in FOLDERS}
    assert tested | {"distilbert", "pegasus", "whisper"} == of_texts
