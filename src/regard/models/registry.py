"""Registry of models by name, and conversion of configurations to and from plain data."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from regard.attention.check import check_integer, show
from regard.errors import ConfigError, nearest
from regard.layers.attention_config import AttentionConfig
from regard.layers.rotary_scaling import RotaryScaling
from regard.models.bert import Bert, BertConfig
from regard.models.conv_attention import ConvAttention, ConvAttentionConfig
from regard.models.convs2s import ConvS2S, ConvS2SConfig
from regard.models.gpt import GPT, GPTConfig
from regard.models.listener import Listener, ListenerConfig
from regard.models.llama import Llama, LlamaConfig
from regard.models.luong import Luong, LuongConfig
from regard.models.picture_transformer import PictureTransformer, PictureTransformerConfig
from regard.models.pointer_generator import PointerGenerator, PointerGeneratorConfig
from regard.models.rnn import RNN, RNNConfig
from regard.models.seq2seq import Vocabulary
from regard.models.show_attend_tell import ShowAttendTell, ShowAttendTellConfig
from regard.models.speech_transformer import SpeechTransformer, SpeechTransformerConfig
from regard.models.t5 import T5, T5Config
from regard.models.text_classifier import TextClassifier, TextClassifierConfig
from regard.models.transformer import Transformer, TransformerConfig
from regard.models.vit import ViT, ViTConfig
from regard.models.whisper import Whisper, WhisperConfig

MODELS: dict[str, tuple[type, type[nn.Module]]] = {
    "transformer": (TransformerConfig, Transformer),
    "rnn": (RNNConfig, RNN),
    "luong": (LuongConfig, Luong),
    "convs2s": (ConvS2SConfig, ConvS2S),
    "bert": (BertConfig, Bert),
    "gpt": (GPTConfig, GPT),
    "llama": (LlamaConfig, Llama),
    "t5": (T5Config, T5),
    "pointer-generator": (PointerGeneratorConfig, PointerGenerator),
    "text-classifier": (TextClassifierConfig, TextClassifier),
    "conv-attention": (ConvAttentionConfig, ConvAttention),
    "vit": (ViTConfig, ViT),
    "show-attend-tell": (ShowAttendTellConfig, ShowAttendTell),
    "picture-transformer": (PictureTransformerConfig, PictureTransformer),
    "whisper": (WhisperConfig, Whisper),
    "listener": (ListenerConfig, Listener),
    "speech-transformer": (SpeechTransformerConfig, SpeechTransformer),
}
FORMER = {"hidden_dim": "ffn_dim", "layers": "num_layers"}  # old names of fields, in folders saved before version 0.1
# Fields that folders saved before version 0.1 lack, where the default is another value now.
FORMER_DEFAULTS: dict[str, dict[str, Any]] = {"rnn": {"input_scale": 1.0}, "luong": {"input_scale": 1.0}}
NAME = "name"  # key of the model's name, in a configuration inside another


def register_model(name: str, config: type, module: type[nn.Module]) -> None:
    """Register a model under a name, so that it can be saved and loaded.

    Args:
        name: a name that no other model has.
        config: configuration class, a frozen dataclass with `vocabulary` or `vocab_size`.
        module: module class, whose only argument is the configuration.

    Raises:
        ConfigError: the name of another model.
    """
    if MODELS.get(name, (config, module)) != (config, module):
        raise ConfigError(f"a model named {name!r} is already registered; choose another name")
    MODELS[name] = (config, module)


def config_from_plain(name: str, plain: Mapping[str, Any]) -> Any:
    """The configuration of a model, from plain data such as JSON or command-line options.

    Args:
        name: of the model.
        plain: its fields; missing ones have their defaults. "vocabulary", "attention" and "rotary_scaling" may be
            dictionaries, as may the configuration of another model, with its name under "name".

    Returns:
        The configuration.

    Raises:
        ConfigError: an unknown model or field; a required field that is missing; a value of the wrong type or out of
            range.

    >>> config_from_plain("rnn", {"vocabulary": {"size": 100}, "hidden_dim": 64}).hidden_dim
    64
    """
    config_class = _entry(name)[0]
    fields = dict(_mapping(name, plain))
    if "vocabulary" in fields and not isinstance(fields["vocabulary"], Vocabulary):
        fields["vocabulary"] = _vocabulary(_mapping("vocabulary", fields["vocabulary"]))
    if "attention" in fields and not isinstance(fields["attention"], AttentionConfig):
        fields["attention"] = AttentionConfig.from_plain(_mapping("attention", fields["attention"]))
    if fields.get("rotary_scaling") is not None and not isinstance(fields["rotary_scaling"], RotaryScaling):
        fields["rotary_scaling"] = RotaryScaling.from_plain(_mapping("rotary_scaling", fields["rotary_scaling"]))
    return _instance(name, config_class, {field: _from_plain(x) for field, x in fields.items()})


def config_to_plain(config: Any) -> dict[str, Any]:
    """A configuration as plain data, the inverse of `config_from_plain`.

    Args:
        config: of a model.

    Returns:
        A dictionary of JSON types, without the model's name; see `name_of`.

    Raises:
        ConfigError: not the configuration of a model, or a value that has no form as plain data.
    """
    name_of(config)
    return {field.name: _to_plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def build(config: Any) -> Any:
    """Build the model of a configuration, with initial weights.

    Args:
        config: of a model.

    Returns:
        The module.

    Raises:
        ConfigError: not the configuration of a model, or inconsistent sizes.
    """
    return MODELS[name_of(config)][1](config)


def vocabulary_size(config: Any) -> int:
    """The vocabulary size of a configuration's model.

    Args:
        config: of a model.

    Returns:
        N, the number of tokens.
    """
    vocabulary: Vocabulary | None = getattr(config, "vocabulary", None)
    size: int = config.vocab_size if vocabulary is None else vocabulary.size
    return size


def name_of(config: Any) -> str:
    """The name of a configuration's model.

    Args:
        config: of a model.

    Returns:
        A key of `MODELS`.

    Raises:
        ConfigError: not the configuration of a model.
    """
    for name, (config_class, _) in MODELS.items():
        if type(config) is config_class:
            return name
    known = ", ".join(config_class.__name__ for config_class, _ in MODELS.values())
    raise ConfigError(f"{show(config)} is not the configuration of a model; expected one of {known}")


def _entry(name: str) -> tuple[type, type[nn.Module]]:
    if name not in list(MODELS):
        raise ConfigError(f"unknown model {name!r}; {nearest(name, MODELS)}")
    return MODELS[name]


def _to_plain(x: Any) -> Any:
    """A field's value as plain data."""
    if isinstance(x, AttentionConfig | Vocabulary | RotaryScaling):
        return x.to_plain()
    if dataclasses.is_dataclass(x):  # another model's configuration
        return {NAME: name_of(x), **config_to_plain(x)}
    return list(x) if isinstance(x, tuple) else x


def _from_plain(x: Any) -> Any:
    """A field's value from plain data: a tuple for a list, a configuration for a dictionary with a model's name."""
    if isinstance(x, Mapping) and isinstance(x.get(NAME), str):
        return config_from_plain(x[NAME], {field: y for field, y in x.items() if field != NAME})
    return tuple(x) if isinstance(x, list) else x


def _mapping(name: str, plain: object) -> Mapping[str, Any]:
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{name}={show(plain)} must be a dictionary of fields")
    return plain


def _vocabulary(plain: Mapping[str, Any]) -> Vocabulary:
    lists = {name: plain.get(name, ()) for name in ("more_eos", "never")}
    for name, tokens in lists.items():
        if not isinstance(tokens, list | tuple):
            raise ConfigError(f"vocabulary: {name}={show(tokens)} must be a list of token ids")
    vocabulary: Vocabulary = _instance(
        "vocabulary", Vocabulary, {**plain, **{name: tuple(x) for name, x in lists.items()}}
    )
    special = {"pad": vocabulary.pad, "bos": vocabulary.bos, "eos": vocabulary.eos}
    special |= {f"{name}[{i}]": x for name, tokens in lists.items() for i, x in enumerate(tokens)}
    for name, x in {"size": vocabulary.size, **special}.items():
        check_integer("vocabulary", name, x, 0)
    if max(special.values()) >= vocabulary.size:
        listing = ", ".join(f"{name}={x}" for name, x in special.items())
        raise ConfigError(f"vocabulary: {listing}; expected token ids below size={vocabulary.size}")
    return vocabulary


def _instance(name: str, cls: type, values: Mapping[str, Any]) -> Any:
    """An instance of a dataclass, from the values of its fields by their present or former names."""
    fields = dataclasses.fields(cls)
    names = [field.name for field in fields]
    values = {
        FORMER.get(key, key) if key not in names and FORMER.get(key) in names else key: x for key, x in values.items()
    }
    for key in values:
        if key not in names:
            raise ConfigError(f"{name} has no field {key!r}; {nearest(key, names)}")
    missing = [field.name for field in fields if field.default is dataclasses.MISSING and field.name not in values]
    if missing:
        raise ConfigError(f"{name} requires {', '.join(missing)}; got {', '.join(values) or 'nothing'}")
    return cls(**values)
