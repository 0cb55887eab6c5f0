"""Fields of the files of published tokenizers: read, refused or irrelevant.

A field is irrelevant if no value of it changes ids or text, and refused unless it has an accepted value, by default an
empty one. Unknown fields are refused too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from regard.attention.check import show
from regard.errors import UnsupportedError

Treatment = Literal["read", "irrelevant", "refused"]
EMPTY: tuple[Any, ...] = (None, False, "", [], {})


# Suffixes of fields that are accepted without an entry here: further special tokens, their ids, and paths.
ACCEPTED_SUFFIXES = ("_token", "_id", "_ids", "_file", "_files")


class Field(NamedTuple):
    """How a field is treated, and why."""

    treatment: Treatment
    why: str
    accepted: tuple[Any, ...] = EMPTY  # values that are not refused


ROLE = "special token of a role, as a string or with flags"
TOKENIZER_CONFIG: dict[str, Field] = {
    **{f"{role}_token": Field("read", ROLE) for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")},
    "additional_special_tokens": Field("read", "further special tokens, such as T5's <extra_id_0>"),
    "extra_special_tokens": Field("read", "the same since transformers 5, a list or by name"),
    "model_specific_special_tokens": Field("read", "the same, by name"),
    "added_tokens_decoder": Field("read", "added tokens by id, with flags"),
    "tokenizer_class": Field("read", "vocabulary files and default special tokens"),
    "extra_ids": Field("read", "T5: number of sentinel tokens <extra_id_0>, ..."),
    "do_lower_case": Field("read", "BERT: whether text is converted to lower case; ignored in other classes"),
    "strip_accents": Field("read", "BERT: whether accents are removed"),
    "tokenize_chinese_chars": Field("read", "BERT: whether Chinese characters are split"),
    "add_prefix_space": Field("read", "byte-level BPE: whether a space is put before a text"),
    "add_bos_token": Field("read", "whether a text starts with bos; without tokenizer.json, which has it"),
    "add_eos_token": Field("read", "whether a text ends with eos; without tokenizer.json, which has it"),
    "clean_up_tokenization_spaces": Field(
        "read", "whether spaces before punctuation are removed in decoded text; not in BPE"
    ),
    "truncation_side": Field("read", "which end of a long text is cut"),
    "do_basic_tokenize": Field("refused", "BERT's text is always split into words first", (True, None)),
    "never_split": Field("refused", "words that are not split"),
    "split_special_tokens": Field("refused", "special tokens in a text are not split"),
    "separate_vocabs": Field("refused", "Marian: sources and targets share one vocab.json"),
    "target_vocab_file": Field("refused", "Marian: sources and targets share one vocab.json"),
    "sp_model_kwargs": Field("refused", "SentencePiece's subword sampling"),
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": Field("refused", "as its name says"),
    "fix_mistral_regex": Field("refused", "tokenizer.json is read as it is"),
    "auto_map": Field("refused", "code of the folder is never run"),
    "normalization": Field("refused", "BERTweet: tweets are rewritten"),
    "do_word_tokenize": Field("refused", "BertJapanese: words are found by MeCab"),
    "do_subword_tokenize": Field("refused", "BertJapanese: words are found by MeCab", (True, None)),
    "word_tokenizer_type": Field("refused", "BertJapanese: words are found by MeCab", ("basic", *EMPTY)),
    "subword_tokenizer_type": Field("refused", "BertJapanese: words are found by MeCab", ("wordpiece", *EMPTY)),
    "keep_accents": Field("refused", "ALBERT and XLNet"),
    "remove_space": Field("refused", "ALBERT and XLNet", (True, None)),
    "legacy": Field("read", "tokenizer.model: whether a space is put before text after a special token"),
    "legacy_behaviour": Field("irrelevant", "NLLB: position of the language token"),
    "model_max_length": Field("irrelevant", "the maximum length is the model's number of positions"),
    "max_len": Field("irrelevant", "the maximum length is the model's number of positions"),
    "max_length": Field("irrelevant", "truncation: set by the caller"),
    "max_seq_length": Field("irrelevant", "truncation: set by the caller"),
    "stride": Field("irrelevant", "truncation: set by the caller"),
    "truncation": Field("irrelevant", "truncation: set by the caller"),
    "truncation_strategy": Field("irrelevant", "pairs of texts, which regard does not read"),
    "padding": Field("irrelevant", "padding never affects results"),
    "padding_side": Field("irrelevant", "padding never affects results"),
    "pad_to_multiple_of": Field("irrelevant", "padding never affects results"),
    "pad_token_type_id": Field("irrelevant", "padding never affects results"),
    "token_type_ids_pattern": Field("irrelevant", "pairs of texts, which regard does not read"),
    "token_type_ids_include_special_tokens": Field("irrelevant", "pairs of texts, which regard does not read"),
    "special_tokens_pattern": Field("irrelevant", "special tokens around a text are those of its class"),
    "source_lang": Field("irrelevant", "Marian: the model's languages, by name"),
    "target_lang": Field("irrelevant", "Marian: the model's languages, by name"),
    "src_lang": Field("irrelevant", "the model's languages, by name"),
    "tgt_lang": Field("irrelevant", "the model's languages, by name"),
    **{name: Field("irrelevant", "Whisper: chosen when it transcribes") for name in ("language", "task")},
    "predict_timestamps": Field("irrelevant", "Whisper: chosen when it transcribes"),
    "errors": Field("irrelevant", "invalid UTF-8 becomes U+FFFD"),
    "trim_offsets": Field("irrelevant", "offsets are not used"),
    "spaces_between_special_tokens": Field("irrelevant", "special tokens are removed from decoded text"),
    "handle_chinese_chars": Field("irrelevant", "tokenize_chinese_chars is read"),
    "wordpieces_prefix": Field("irrelevant", "it is ## in every vocab.txt"),
    "chat_template": Field("irrelevant", "no chat templates: texts are read as they are"),
    "response_schema": Field("irrelevant", "no chat templates: texts are read as they are"),
    "response_template": Field("irrelevant", "no chat templates: texts are read as they are"),
    "chat_control_tokens": Field("irrelevant", "no chat templates: texts are read as they are"),
    "use_default_system_prompt": Field("irrelevant", "no chat templates: texts are read as they are"),
    "model_input_names": Field("irrelevant", "which tensors the transformers package returns"),
    "processor_class": Field("irrelevant", "models of images or audio"),
    "feature_extractor_type": Field("irrelevant", "models of images or audio"),
    "vocab_size": Field("irrelevant", "that of the vocabulary is used"),
    "model_type": Field("irrelevant", "config.json is read"),
    "tokenizer_type": Field("irrelevant", "tokenizer_class is read"),
    "backend": Field("irrelevant", "how the folder was made or is loaded"),
    "cache_dir": Field("irrelevant", "how the folder was made or is loaded"),
    "device_map": Field("irrelevant", "how the folder was made or is loaded"),
    "from_slow": Field("irrelevant", "how the folder was made or is loaded"),
    "init_inputs": Field("refused", "arguments without names"),
    "is_local": Field("irrelevant", "how the folder was made or is loaded"),
    "local_files_only": Field("irrelevant", "how the folder was made or is loaded"),
    "name_or_path": Field("irrelevant", "how the folder was made or is loaded"),
    "revision": Field("irrelevant", "how the folder was made or is loaded"),
    "torch_dtype": Field("irrelevant", "how the folder was made or is loaded"),
    "transformers_version": Field("irrelevant", "how the folder was made or is loaded"),
    "trust_remote_code": Field("irrelevant", "how the folder was made or is loaded"),
    "use_auth_token": Field("irrelevant", "how the folder was made or is loaded"),
    "use_fast": Field("irrelevant", "how the folder was made or is loaded"),
    "dtype": Field("irrelevant", "how the folder was made or is loaded"),
    "force_download": Field("irrelevant", "how the folder was made or is loaded"),
    "max_target_length": Field("irrelevant", "truncation: set by the caller"),
    "subfolder": Field("irrelevant", "how the folder was made or is loaded"),
    "token": Field("irrelevant", "how the folder was made or is loaded"),
    "verbose": Field("irrelevant", "how the folder was made or is loaded"),
}
SPECIAL_TOKENS_MAP: dict[str, Field] = {
    **{f"{role}_token": Field("read", ROLE) for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")},
    "additional_special_tokens": Field("read", "further special tokens"),
    "extra_special_tokens": Field("read", "the same since transformers 5, a list or by name"),
}
ADDED_TOKENS: dict[str, Field] = {
    "any token": Field("read", "its id; it is matched in normalized text, and not special")
}
ADDED_TOKEN: dict[str, Field] = {  # a token with flags, in whichever file
    "content": Field("read", "the token"),
    "lstrip": Field("read", "whether it includes white space before it"),
    "rstrip": Field("read", "whether it includes white space after it"),
    "single_word": Field("read", "whether it is matched only as a whole word"),
    "normalized": Field("read", "whether it is matched in normalized text"),
    "special": Field("read", "whether it is a special token, removed from decoded text"),
    "id": Field("read", "in tokenizer.json: its id"),
    "__type": Field("irrelevant", "always AddedToken"),
}
TOKENIZER: dict[str, Field] = {  # read by the tokenizers package, which refuses unknown types
    "version": Field("read", "1.0"),
    "added_tokens": Field("read", "added tokens, with flags"),
    "normalizer": Field(
        "read", "BERT's is changed by do_lower_case, strip_accents and tokenize_chinese_chars in tokenizer_config.json"
    ),
    "pre_tokenizer": Field("read", "a byte-level one is changed by add_prefix_space in tokenizer_config.json"),
    "model": Field("read", "WordPiece, BPE, Unigram or WordLevel; BPE's dropout is disabled"),
    "post_processor": Field("read", "special tokens around a text"),
    "decoder": Field("read", "from ids to text"),
    "truncation": Field("irrelevant", "the maximum length is the model's number of positions"),
    "padding": Field("irrelevant", "padding never affects results"),
}
FILES: dict[str, dict[str, Field]] = {
    "tokenizer.json": TOKENIZER,
    "tokenizer_config.json": TOKENIZER_CONFIG,
    "special_tokens_map.json": SPECIAL_TOKENS_MAP,
    "added_tokens.json": ADDED_TOKENS,
}


def check_fields(path: Path, fields: Mapping[str, Any], known: Mapping[str, Field]) -> None:
    """Raise UnsupportedError for a field that is unknown or has a refused value.

    Args:
        path: of the file, for messages.
        fields: of the file.
        known: a value of `FILES`.

    Raises:
        UnsupportedError: a field that may change how texts are tokenized.
    """
    for name, x in fields.items():
        field = known.get(name)
        if (
            field is None
            and not name.endswith(ACCEPTED_SUFFIXES)
            and not name.startswith("_")
            and not _is_accepted(x, EMPTY)
        ):
            raise UnsupportedError(
                f"{path}: unknown field {name}={show(x)}, which may change how texts are tokenized. If it does not, "
                "remove it from the file"
            )
        if field is not None and field.treatment == "refused" and not _is_accepted(x, field.accepted):
            raise UnsupportedError(
                f"{path}: {name}={show(x)} is not supported ({field.why}); expected "
                f"{' or '.join(map(repr, field.accepted[:2]))}"
            )


def _is_accepted(x: object, accepted: tuple[Any, ...]) -> bool:
    return any(type(x) is type(one) and x == one for one in accepted)
