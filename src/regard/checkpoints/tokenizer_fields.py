"""The fields of the files that say how a published tokenizer reads text, and what regard does with each.

A field is read; or irrelevant, since no value of it changes ids or text; or refused, unless its value is one that says
nothing. A field that is not known here is refused too: what it does to texts is not known either.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from regard.attention.check import show
from regard.errors import UnsupportedError

Treatment = Literal["read", "irrelevant", "refused"]
NOTHING: tuple[Any, ...] = (None, False, "", [], {})  # values of a field that says nothing


# Ends of names whose fields are irrelevant, or a further mark: ids and paths, which the folder itself has.
OTHERS = ("_token", "_id", "_ids", "_file", "_files")


class Field(NamedTuple):
    """What is done with a field."""

    treatment: Treatment
    why: str
    accepted: tuple[Any, ...] = NOTHING  # values that are not refused


ROLE = "the token of a role, as text or with flags"
TOKENIZER_CONFIG: dict[str, Field] = {
    **{f"{role}_token": Field("read", ROLE) for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")},
    "additional_special_tokens": Field("read", "further marks, of T5 its <extra_id_0> and so on"),
    "extra_special_tokens": Field("read", "the same since transformers 5, a list or by name"),
    "model_specific_special_tokens": Field("read", "the same, by name"),
    "added_tokens_decoder": Field("read", "tokens beside the vocabulary by id, with flags"),
    "tokenizer_class": Field("read", "which files the vocabulary stands in, and the usual roles"),
    "extra_ids": Field("read", "T5: how many marks <extra_id_0> and so on stand behind the pieces"),
    "do_lower_case": Field("read", "BERT: whether text is read in lower case; no other class looks at it"),
    "strip_accents": Field("read", "BERT: whether letters lose their accents"),
    "tokenize_chinese_chars": Field("read", "BERT: whether Chinese characters stand alone"),
    "add_prefix_space": Field("read", "byte-level BPE: whether a text is read with a space before it"),
    "add_bos_token": Field("read", "whether a text starts with bos, where there is no tokenizer.json, which says it"),
    "add_eos_token": Field("read", "whether a text ends with eos, where there is no tokenizer.json, which says it"),
    "clean_up_tokenization_spaces": Field("read", "whether decoded text loses spaces before punctuation; not of BPE"),
    "truncation_side": Field("read", "which end of a text that is too long is cut"),
    "do_basic_tokenize": Field("refused", "BERT's text is always parted into words first", (True, None)),
    "never_split": Field("refused", "words that BERT would not cut"),
    "split_special_tokens": Field("refused", "marks in a text are marks"),
    "separate_vocabs": Field("refused", "Marian: one vocab.json counts sources and targets"),
    "target_vocab_file": Field("refused", "Marian: one vocab.json counts sources and targets"),
    "sp_model_kwargs": Field("refused", "SentencePiece's sampling"),
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": Field("refused", "as its name says"),
    "fix_mistral_regex": Field("refused", "tokenizer.json is read as it is"),
    "auto_map": Field("refused", "code of the folder is never run"),
    "normalization": Field("refused", "BERTweet: tweets are rewritten"),
    "do_word_tokenize": Field("refused", "BertJapanese: words are found by MeCab"),
    "do_subword_tokenize": Field("refused", "BertJapanese: words are found by MeCab", (True, None)),
    "word_tokenizer_type": Field("refused", "BertJapanese: words are found by MeCab", ("basic", *NOTHING)),
    "subword_tokenizer_type": Field("refused", "BertJapanese: words are found by MeCab", ("wordpiece", *NOTHING)),
    "keep_accents": Field("refused", "ALBERT and XLNet"),
    "remove_space": Field("refused", "ALBERT and XLNet", (True, None)),
    "legacy": Field("read", "tokenizer.model: whether text behind a mark starts with a space of its own"),
    "legacy_behaviour": Field("irrelevant", "where NLLB puts its language"),
    "model_max_length": Field("irrelevant", "the model's own positions bound its texts"),
    "max_len": Field("irrelevant", "the model's own positions bound its texts"),
    "max_length": Field("irrelevant", "of truncation, which the caller says"),
    "max_seq_length": Field("irrelevant", "of truncation, which the caller says"),
    "stride": Field("irrelevant", "of truncation, which the caller says"),
    "truncation": Field("irrelevant", "of truncation, which the caller says"),
    "truncation_strategy": Field("irrelevant", "of pairs of texts, of which regard reads none"),
    "padding": Field("irrelevant", "padding is never looked at"),
    "padding_side": Field("irrelevant", "padding is never looked at"),
    "pad_to_multiple_of": Field("irrelevant", "padding is never looked at"),
    "pad_token_type_id": Field("irrelevant", "padding is never looked at"),
    "token_type_ids_pattern": Field("irrelevant", "of pairs of texts, of which regard reads none"),
    "token_type_ids_include_special_tokens": Field("irrelevant", "of pairs of texts, of which regard reads none"),
    "special_tokens_pattern": Field("irrelevant", "the marks around a text are those of its class"),
    "source_lang": Field("irrelevant", "Marian: the model's languages, by name"),
    "target_lang": Field("irrelevant", "Marian: the model's languages, by name"),
    "src_lang": Field("irrelevant", "the model's languages, by name"),
    "tgt_lang": Field("irrelevant", "the model's languages, by name"),
    "errors": Field("irrelevant", "bytes that are no UTF-8 become U+FFFD"),
    "trim_offsets": Field("irrelevant", "offsets are not asked for"),
    "spaces_between_special_tokens": Field("irrelevant", "marks are left out of decoded text"),
    "handle_chinese_chars": Field("irrelevant", "tokenize_chinese_chars says it"),
    "wordpieces_prefix": Field("irrelevant", "it is ## in every vocab.txt"),
    "chat_template": Field("irrelevant", "texts are read as they are"),
    "response_schema": Field("irrelevant", "texts are read as they are"),
    "response_template": Field("irrelevant", "texts are read as they are"),
    "chat_control_tokens": Field("irrelevant", "texts are read as they are"),
    "use_default_system_prompt": Field("irrelevant", "texts are read as they are"),
    "model_input_names": Field("irrelevant", "which tensors transformers makes"),
    "processor_class": Field("irrelevant", "of models with pictures or sound"),
    "feature_extractor_type": Field("irrelevant", "of models with pictures or sound"),
    "vocab_size": Field("irrelevant", "the vocabulary has its own"),
    "model_type": Field("irrelevant", "config.json says it"),
    "tokenizer_type": Field("irrelevant", "tokenizer_class says it"),
    "backend": Field("irrelevant", "how the folder was made or is to be got"),
    "cache_dir": Field("irrelevant", "how the folder was made or is to be got"),
    "device_map": Field("irrelevant", "how the folder was made or is to be got"),
    "from_slow": Field("irrelevant", "how the folder was made or is to be got"),
    "init_inputs": Field("refused", "arguments without names"),
    "is_local": Field("irrelevant", "how the folder was made or is to be got"),
    "local_files_only": Field("irrelevant", "how the folder was made or is to be got"),
    "name_or_path": Field("irrelevant", "how the folder was made or is to be got"),
    "revision": Field("irrelevant", "how the folder was made or is to be got"),
    "torch_dtype": Field("irrelevant", "how the folder was made or is to be got"),
    "transformers_version": Field("irrelevant", "how the folder was made or is to be got"),
    "trust_remote_code": Field("irrelevant", "how the folder was made or is to be got"),
    "use_auth_token": Field("irrelevant", "how the folder was made or is to be got"),
    "use_fast": Field("irrelevant", "how the folder was made or is to be got"),
    "dtype": Field("irrelevant", "how the folder was made or is to be got"),
    "force_download": Field("irrelevant", "how the folder was made or is to be got"),
    "max_target_length": Field("irrelevant", "of truncation, which the caller says"),
    "subfolder": Field("irrelevant", "how the folder was made or is to be got"),
    "token": Field("irrelevant", "how the folder was made or is to be got"),
    "verbose": Field("irrelevant", "how the folder was made or is to be got"),
}
SPECIAL_TOKENS_MAP: dict[str, Field] = {
    **{f"{role}_token": Field("read", ROLE) for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")},
    "additional_special_tokens": Field("read", "further marks"),
    "extra_special_tokens": Field("read", "the same since transformers 5, a list or by name"),
}
ADDED_TOKENS: dict[str, Field] = {"any token": Field("read", "its id; it is found in the normalized text, and no mark")}
ADDED_TOKEN: dict[str, Field] = {  # a token with flags, in whichever file
    "content": Field("read", "the token"),
    "lstrip": Field("read", "white space before it belongs to it"),
    "rstrip": Field("read", "white space after it belongs to it"),
    "single_word": Field("read", "it is found only where no letter or digit touches it"),
    "normalized": Field("read", "it is found in the normalized text"),
    "special": Field("read", "it is a mark, left out of decoded text"),
    "id": Field("read", "in tokenizer.json: its id"),
    "__type": Field("irrelevant", "always AddedToken"),
}
TOKENIZER: dict[str, Field] = {  # read by the tokenizers package, which refuses a kind that it does not know
    "version": Field("read", "1.0"),
    "added_tokens": Field("read", "tokens beside the vocabulary, with flags"),
    "normalizer": Field("read", "BERT's is changed by do_lower_case and its kin in tokenizer_config.json"),
    "pre_tokenizer": Field("read", "a byte-level one is changed by add_prefix_space in tokenizer_config.json"),
    "model": Field("read", "WordPiece, BPE, Unigram or WordLevel; BPE's dropout, which is for training, is left out"),
    "post_processor": Field("read", "the marks around a text"),
    "decoder": Field("read", "how ids become text"),
    "truncation": Field("irrelevant", "the model's own positions bound its texts"),
    "padding": Field("irrelevant", "padding is never looked at"),
}
FILES: dict[str, dict[str, Field]] = {
    "tokenizer.json": TOKENIZER,
    "tokenizer_config.json": TOKENIZER_CONFIG,
    "special_tokens_map.json": SPECIAL_TOKENS_MAP,
    "added_tokens.json": ADDED_TOKENS,
}


def check_fields(path: Path, fields: Mapping[str, Any], known: Mapping[str, Field]) -> None:
    """Raise UnsupportedError for a field that is refused, or not known.

    Args:
        path: of the file, for messages.
        fields: what it says.
        known: of `FILES`.

    Raises:
        UnsupportedError: a field that may change what texts are read as.
    """
    for name, x in fields.items():
        field = known.get(name)
        if field is None and not name.endswith(OTHERS) and not name.startswith("_") and not _is_one(x, NOTHING):
            raise UnsupportedError(
                f"{path} has the field {name}={show(x)}, which is not known, and may change how texts are read; "
                "take it out of the file if it does not"
            )
        if field is not None and field.treatment == "refused" and not _is_one(x, field.accepted):
            raise UnsupportedError(
                f"{path} says {name}={show(x)}, which is not supported: {field.why}; expected "
                f"{' or '.join(map(repr, field.accepted[:2]))}"
            )


def _is_one(x: object, accepted: tuple[Any, ...]) -> bool:
    return any(type(x) is type(one) and x == one for one in accepted)
