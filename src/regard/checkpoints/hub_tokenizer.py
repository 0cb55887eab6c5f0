"""Loading of tokenizers from folders in the layout of the Hugging Face hub.

    tokenizer.json                  or the files of the tokenizer's class: vocab.txt; vocab.json and merges.txt
    spiece.model                    or source.spm, target.spm and vocab.json (SentencePiece); before tokenizer.json
    tokenizer_config.json           the class, special tokens by role, and added tokens with flags
    special_tokens_map.json, added_tokens.json    the same, if tokenizer_config.json has no added_tokens_decoder

Precedence and defaults are those of the transformers package.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import tokenizers
from tokenizers import AddedToken, normalizers, pre_tokenizers

from regard.attention.check import is_integer, show
from regard.checkpoints.folder import TOKENIZER, AnyTokenizer, read_json
from regard.checkpoints.hub_files import check_inside, read_fields
from regard.checkpoints.tokenizer_fields import ADDED_TOKEN, SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, check_fields
from regard.data.added_tokens import FLAGS, mark
from regard.data.published_tokenizer import PublishedTokenizer
from regard.data.sentencepiece_layouts import marian_tokenizer, t5_tokenizer, xlm_roberta_tokenizer
from regard.data.sentencepiece_tokenizer import EXTRA_ID, PAIRED, SentencePieceTokenizer
from regard.data.text_tokenizer import ROLES, TextTokenizer
from regard.data.vocabulary_files import WORD_PIECE_ROLES, read_byte_level, read_word_piece
from regard.errors import CheckpointError, UnsupportedError
from regard.models.published import summarize_names

CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
MAX_EXTRA_IDS = 100_000
EXTRA_IDS = 100  # default number of T5's sentinel tokens
END = "<|endoftext|>"  # GPT-2's only special token
ROBERTA_ROLES = {
    "unk": "<unk>", "pad": "<pad>", "bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "mask": "<mask>",
}  # fmt: skip
BASE_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend", "PythonBackend", "SentencePieceBackend")


class TokenInfo(NamedTuple):
    """Special and added tokens, as the files of a folder specify them."""

    roles: dict[str, str]  # special tokens by role
    described: list[AddedToken]  # tokens whose flags override those of the vocabulary, in the order of their ids
    named: list[AddedToken]  # tokens that are added if the vocabulary lacks them
    ids: dict[str, int]  # specified ids of added tokens


Files = Mapping[str, Path]
Build = Callable[[Files, TokenInfo, Mapping[str, Any]], TextTokenizer]
Change = Callable[[tokenizers.Tokenizer, Mapping[str, Any]], object]


@final
@dataclass(frozen=True, kw_only=True)
class TokenizerClass:
    """A tokenizer class of the transformers package, and how it is built without a tokenizer.json.

    Args:
        files: names of the vocabulary files.
        roles: default special tokens by role, if the vocabulary has them.
        build: builds the tokenizer from the vocabulary files.
        change: applies tokenizer_config.json to the tokenizer of a tokenizer.json.
        first: whether the vocabulary files are preferred to a tokenizer.json.
    """

    files: tuple[str, ...]
    roles: Mapping[str, str]
    build: Build
    change: Change = lambda subwords, config: None
    first: bool = False


def read_tokenizer(folder: Path, usual: str) -> AnyTokenizer:
    """Load the tokenizer of a folder.

    Args:
        folder: in the hub's layout.
        usual: default class, a key of `CLASSES`.

    Returns:
        The tokenizer, or None if the folder has no vocabulary.

    Raises:
        CheckpointError: files that are missing, damaged or inconsistent.
        UnsupportedError: a class or a field that is not supported.
    """
    config, token_map = read_fields(folder, CONFIG), read_fields(folder, MAP)
    names = {TOKENIZER, *(name for known in CLASSES.values() for name in known.files)}
    files = {name: check_inside(folder, folder / name) for name in sorted(names) if (folder / name).is_file()}
    if not files:
        return None
    check_fields(folder / CONFIG, config, TOKENIZER_CONFIG)
    check_fields(folder / MAP, token_map, SPECIAL_TOKENS_MAP)
    name, kind = _class(folder, config, files, usual)
    own_files = kind is not None and set(kind.files) <= set(files) and (kind.first or TOKENIZER not in files)
    listed = read_json(files[TOKENIZER]).get("added_tokens") if own_files and TOKENIZER in files else None
    tokens = _tokens(folder, config, token_map, CLASSES[usual].roles if kind is None else kind.roles, listed)
    tokenizer: TextTokenizer
    if kind is not None and own_files:
        tokenizer = kind.build(files, tokens, config)
    elif TOKENIZER in files:
        changes = [] if kind is None or name in BASE_CLASSES else [lambda subwords: kind.change(subwords, config)]
        tokenizer = PublishedTokenizer.load(files[TOKENIZER], tokens.roles, tokens.described, tokens.named, changes)
    elif kind is None:
        raise UnsupportedError(
            f"{folder}: tokenizer_class={show(name)} is not supported; expected a {TOKENIZER} in the folder, or one of "
            f"{', '.join(CLASSES)}"
        )
    else:
        missing = [name for name in kind.files if name not in files]
        raise CheckpointError(
            f"{folder} has no {' and no '.join(missing)}, and no {TOKENIZER}; its vocabulary files are "
            f"{summarize_names(files)}"
        )
    for content, number in tokens.ids.items():
        if tokenizer.id_of(content) != number:
            raise CheckpointError(
                f"{folder}: the token {content!r} has the id {number} in the tokenizer's files, but "
                f"{tokenizer.id_of(content)} in the vocabulary; expected the same id"
            )
    tokenizer.use(
        {"truncation_side": config.get("truncation_side"), "clean_up": config.get("clean_up_tokenization_spaces")}
    )
    return tokenizer


def _class(folder: Path, config: Mapping[str, Any], files: Files, usual: str) -> tuple[str, TokenizerClass | None]:
    """The name of the tokenizer's class, and the class; None if it is unknown."""
    name = config.get("tokenizer_class") or read_fields(folder, "config.json").get("tokenizer_class") or usual
    name = str(name).removesuffix("Fast")
    kind = CLASSES.get(usual if name in BASE_CLASSES else name)
    if kind is not None and not set(kind.files) <= set(files) and set(CLASSES[usual].files) <= set(files):
        return usual, CLASSES[usual]  # such as a Qwen2 with tokenizer_class LlamaTokenizerFast
    return name, kind


def _tokens(
    folder: Path,
    config: Mapping[str, Any],
    token_map: Mapping[str, Any],
    usual: Mapping[str, str],
    listed: object,
) -> TokenInfo:
    """Special and added tokens, from the files of a folder.

    Args:
        folder: of the files, for messages.
        config: tokenizer_config.json.
        token_map: special_tokens_map.json, which overrides the configuration unless that has added_tokens_decoder.
        usual: default special tokens by role.
        listed: "added_tokens" of a tokenizer.json, if vocabulary files are preferred to it; else None.

    Returns:
        The tokens.
    """
    described = config.get("added_tokens_decoder")
    fields = {**token_map, **config} if isinstance(described, dict) else {**config, **token_map}
    roles, named = dict(usual), []
    for role in ROLES:
        if (name := f"{role}_token") not in fields or fields[name] == "":
            continue
        token = _token(folder, name, fields[name])
        if token is None:
            roles.pop(role, None)  # an explicit null
        elif token.content:
            roles[role] = token.content
            named.append(_as_special(token))
    extra = [x for name, x in fields.items() if name.endswith("_token") and name.removesuffix("_token") not in ROLES]
    extra = [x for x in extra if isinstance(x, str | dict)]  # others are switches, such as add_bos_token
    for name in ("model_specific_special_tokens", "extra_special_tokens", "additional_special_tokens"):
        values = fields.get(name) or []
        extra += values.values() if isinstance(values, dict) else values if isinstance(values, list) else [values]
    extra_tokens = [_token(folder, "a special token", x) for x in extra]
    named += [_as_special(token) for token in extra_tokens if token is not None and token.content]
    if not isinstance(described, dict) and isinstance(listed, list):
        described = {x["id"]: x for x in listed if isinstance(x, dict) and "id" in x}
    if isinstance(described, dict):
        by_id = {_token_id(folder, i): _token(folder, f"the token {i}", x) for i, x in described.items()}
        added = {i: token for i, token in sorted(by_id.items()) if token is not None}
        with_flags = [_as_special(token) if token.content in roles.values() else token for token in added.values()]
        return TokenInfo(roles, with_flags, named, {token.content: i for i, token in added.items()})
    special = {*roles.values(), *(token.content for token in named)}
    ids = {content: _token_id(folder, i) for content, i in read_fields(folder, ADDED).items()}
    plain = [
        AddedToken(content, normalized=content not in special, special=content in special)
        for content in sorted(ids, key=ids.__getitem__)
    ]
    return TokenInfo(roles, [], [*plain, *named], ids)


def _token(folder: Path, name: str, value: object) -> AddedToken | None:
    """A token from its value in the files: a string, or an object with content and flags; None for null."""
    if value is None:
        return None
    if isinstance(value, str):
        return mark(value)
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise CheckpointError(
            f"{folder}: {name} is {show(value)}; expected a string, or an object with content and flags"
        )
    check_fields(folder, value, ADDED_TOKEN)
    return AddedToken(value["content"], **{flag: value[flag] for flag in FLAGS if isinstance(value.get(flag), bool)})


def _as_special(token: AddedToken) -> AddedToken:
    """The token with the flag "special"."""
    flags = {flag: getattr(token, flag) for flag in FLAGS}
    return AddedToken(token.content, **{**flags, "special": True})


def _token_id(folder: Path, value: object) -> int:
    """The id of a token, from a number or from a key of a JSON object."""
    number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else value
    if not is_integer(number) or not 0 <= number < 2**31:
        raise CheckpointError(f"{folder}: a token has the id {show(value)}; expected an integer >= 0")
    return int(number)


def _word_piece(files: Files, tokens: TokenInfo, config: Mapping[str, Any]) -> TextTokenizer:
    return read_word_piece(
        files["vocab.txt"],
        {**{role: WORD_PIECE_ROLES[role] for role in ("unk", "cls", "sep")}, **tokens.roles},
        tokens.described,
        tokens.named,
        lowercase=config.get("do_lower_case") is not False,
        strip_accents=config.get("strip_accents"),
        chinese=config.get("tokenize_chinese_chars") is not False,
    )


def _change_word_piece(subwords: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
    """Apply the fields of tokenizer_config.json to BERT's normalizer."""
    fields = {
        "lowercase": "do_lower_case",
        "strip_accents": "strip_accents",
        "handle_chinese_chars": "tokenize_chinese_chars",
    }
    for step in _steps(subwords.normalizer, normalizers.Sequence):
        for name, field in fields.items():
            if isinstance(step, normalizers.BertNormalizer) and isinstance(config.get(field), bool):
                setattr(step, name, config[field])


def _byte_level(roberta: bool = False, qwen2: bool = False) -> Build:
    def build(files: Files, tokens: TokenInfo, config: Mapping[str, Any]) -> TextTokenizer:
        before = [role for role in ("bos",) if config.get(f"add_{role}_token") is True and role in tokens.roles]
        after = [role for role in ("eos",) if config.get(f"add_{role}_token") is True and role in tokens.roles]
        return read_byte_level(
            files["vocab.json"],
            files["merges.txt"],
            tokens.roles,
            tokens.described,
            tokens.named,
            prefix_space=config.get("add_prefix_space") is True,
            qwen2=qwen2,
            before=["cls"] if roberta else before,
            after=["sep"] if roberta else after,
        )

    return build


def _change_byte_level(subwords: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
    """Apply add_prefix_space of tokenizer_config.json to the byte-level pre-tokenizer."""
    for step in _steps(subwords.pre_tokenizer, pre_tokenizers.Sequence):
        if isinstance(step, pre_tokenizers.ByteLevel) and isinstance(config.get("add_prefix_space"), bool):
            step.add_prefix_space = config["add_prefix_space"]


def _steps(component: Any, sequence: type) -> list[Any]:
    """The steps of a normalizer or pre-tokenizer, which may be a sequence."""
    return list(component) if isinstance(component, sequence) else [component]


def _t5(files: Files, tokens: TokenInfo, config: Mapping[str, Any]) -> TextTokenizer:
    named = {token.content for token in (*tokens.named, *tokens.described) if EXTRA_ID.fullmatch(token.content)}
    count, path = config.get("extra_ids", len(named) or EXTRA_IDS), files["spiece.model"]
    if not is_integer(count) or not 0 <= count <= MAX_EXTRA_IDS:
        raise CheckpointError(f"{path.parent}: extra_ids={show(count)}; expected a number from 0 to {MAX_EXTRA_IDS}")
    return t5_tokenizer(path.read_bytes(), extra_ids=int(count), added=_all_added(tokens), roles=tokens.roles)


def _marian(files: Files, tokens: TokenInfo, config: Mapping[str, Any]) -> TextTokenizer:
    source, target = (files[name].read_bytes() for name in ("source.spm", "target.spm"))
    ids = read_json(files["vocab.json"])
    return marian_tokenizer(source, target, ids, added=_all_added(tokens), roles=tokens.roles)


def _xlm_roberta(files: Files, tokens: TokenInfo, config: Mapping[str, Any]) -> TextTokenizer:
    model = files["sentencepiece.bpe.model"].read_bytes()
    return xlm_roberta_tokenizer(model, added=_all_added(tokens), roles=tokens.roles)


def _llama(files: Files, tokens: TokenInfo, config: Mapping[str, Any]) -> TextTokenizer:
    before = ["bos"] if config.get("add_bos_token") is not False and "bos" in tokens.roles else []
    after = ["eos"] if config.get("add_eos_token") is True and "eos" in tokens.roles else []
    return SentencePieceTokenizer(
        files["tokenizer.model"].read_bytes(),
        added=_all_added(tokens),
        roles=tokens.roles,
        before=before,
        after=after,
        layout="llama",
        prefix_each=config.get("legacy") is True,
    )


def _all_added(tokens: TokenInfo) -> list[AddedToken]:
    """The added tokens, those with flags of their own first."""
    return list({x.content: x for x in (*reversed(tokens.named), *reversed(tokens.described))}.values())[::-1]


BYTE_LEVEL = {"files": ("vocab.json", "merges.txt"), "change": _change_byte_level}
CLASSES: dict[str, TokenizerClass] = {
    **dict.fromkeys(
        ("BertTokenizer", "DistilBertTokenizer"),
        TokenizerClass(files=("vocab.txt",), roles=WORD_PIECE_ROLES, build=_word_piece, change=_change_word_piece),
    ),
    "RobertaTokenizer": TokenizerClass(roles=ROBERTA_ROLES, build=_byte_level(roberta=True), **BYTE_LEVEL),
    "GPT2Tokenizer": TokenizerClass(roles={"bos": END, "eos": END, "unk": END}, build=_byte_level(), **BYTE_LEVEL),
    "WhisperTokenizer": TokenizerClass(roles={"bos": END, "eos": END, "unk": END}, build=_byte_level(), **BYTE_LEVEL),
    "Qwen2Tokenizer": TokenizerClass(
        roles={"eos": END, "unk": END, "pad": END}, build=_byte_level(qwen2=True), **BYTE_LEVEL
    ),
    "XLMRobertaTokenizer": TokenizerClass(files=("sentencepiece.bpe.model",), roles=ROBERTA_ROLES, build=_xlm_roberta),
    "LlamaTokenizer": TokenizerClass(
        files=("tokenizer.model",), roles={"bos": "<s>", "eos": "</s>", "unk": "<unk>"}, build=_llama
    ),
    "T5Tokenizer": TokenizerClass(files=("spiece.model",), roles=PAIRED, build=_t5, first=True),
    "MarianTokenizer": TokenizerClass(
        files=("source.spm", "target.spm", "vocab.json"), roles=PAIRED, build=_marian, first=True
    ),
}
