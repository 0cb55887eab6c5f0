"""The models by name, and their configurations as plain data."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from regard.attention.check import check_integer, show
from regard.errors import ConfigError, nearest
from regard.layers.attention_config import AttentionConfig
from regard.layers.rotary_scaling import RotaryScaling
from regard.models.bert import Bert, BertConfig
from regard.models.convs2s import ConvS2S, ConvS2SConfig
from regard.models.gpt import GPT, GPTConfig
from regard.models.llama import Llama, LlamaConfig
from regard.models.luong import Luong, LuongConfig
from regard.models.pointer_generator import PointerGenerator, PointerGeneratorConfig
from regard.models.rnn import RNN, RNNConfig
from regard.models.seq2seq import Vocabulary
from regard.models.t5 import T5, T5Config
from regard.models.text_classifier import TextClassifier, TextClassifierConfig
from regard.models.transformer import Transformer, TransformerConfig
from regard.models.vit import ViT, ViTConfig

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
    "vit": (ViTConfig, ViT),
}
FORMER = {"hidden_dim": "ffn_dim", "layers": "num_layers"}  # names of fields in folders saved before version 0.1
NAME = "name"  # key of a model's name, in the plain data of one that a configuration holds


def register_model(name: str, config: type, module: type[nn.Module]) -> None:
    """Make a model known by name, so that folders of it can be saved and loaded.

    Args:
        name: of the model; it must be free.
        config: its configuration, a frozen dataclass with `vocabulary` or `vocab_size`.
        module: its module, which is built from the configuration alone.

    Raises:
        ConfigError: a name that another model has.
    """
    if MODELS.get(name, (config, module)) != (config, module):
        raise ConfigError(f"the model {name!r} is there already; give yours another name")
    MODELS[name] = (config, module)


def config_from_plain(name: str, plain: Mapping[str, Any]) -> Any:
    """The configuration of a model from plain data, as files and command lines give it.

    Args:
        name: of the model.
        plain: its fields; what is left out has its default. "vocabulary", "attention" and "rotary_scaling" may be
            dictionaries, and so may another model's configuration, with its name under "name".

    Returns:
        The model's configuration.

    Raises:
        ConfigError: an unknown model or field, named beside the nearest known one; a field that is missing, of the
            wrong type or out of range.

    >>> config_from_plain("rnn", {"vocabulary": {"size": 100}, "hidden_dim": 64}).hidden_dim
    64
    """
    made = _entry(name)[0]
    given = dict(_mapping(name, plain))
    if "vocabulary" in given and not isinstance(given["vocabulary"], Vocabulary):
        given["vocabulary"] = _vocabulary(_mapping("vocabulary", given["vocabulary"]))
    if "attention" in given and not isinstance(given["attention"], AttentionConfig):
        given["attention"] = AttentionConfig.from_plain(_mapping("attention", given["attention"]))
    if given.get("rotary_scaling") is not None and not isinstance(given["rotary_scaling"], RotaryScaling):
        given["rotary_scaling"] = RotaryScaling.from_plain(_mapping("rotary_scaling", given["rotary_scaling"]))
    return _filled(name, made, {field: _value(x) for field, x in given.items()})


def config_to_plain(config: Any) -> dict[str, Any]:
    """A configuration as plain data, from which `config_from_plain` makes an equal one.

    Args:
        config: of a model.

    Returns:
        A dictionary of JSON's types, without the model's name, which `name_of` gives.

    Raises:
        ConfigError: what is not the configuration of a model, or holds a value that plain data cannot name.
    """
    name_of(config)
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def build(config: Any) -> Any:
    """The model of a configuration, with weights to start training from.

    Args:
        config: of a model.

    Returns:
        The model.

    Raises:
        ConfigError: what is not the configuration of a model, or sizes that don't go together.
    """
    return MODELS[name_of(config)][1](config)


def vocabulary_size(config: Any) -> int:
    """How many tokens the model of a configuration knows.

    Args:
        config: of a model.

    Returns:
        N.
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
        ConfigError: what is not the configuration of a model.
    """
    for name, (made, _) in MODELS.items():
        if type(config) is made:
            return name
    known = ", ".join(made.__name__ for made, _ in MODELS.values())
    raise ConfigError(f"{show(config)} is not the configuration of a model; known: {known}")


def _entry(name: str) -> tuple[type, type[nn.Module]]:
    if name not in list(MODELS):
        raise ConfigError(f"unknown model {name!r}; {nearest(name, MODELS)}")
    return MODELS[name]


def _plain(x: Any) -> Any:
    if isinstance(x, AttentionConfig | Vocabulary | RotaryScaling):
        return x.to_plain()
    if dataclasses.is_dataclass(x):  # the configuration of another model
        return {NAME: name_of(x), **config_to_plain(x)}
    return list(x) if isinstance(x, tuple) else x


def _value(x: Any) -> Any:
    """A field's value from plain data: a tuple of a list, the configuration of another model of a dictionary."""
    if isinstance(x, Mapping) and isinstance(x.get(NAME), str):
        return config_from_plain(x[NAME], {field: y for field, y in x.items() if field != NAME})
    return tuple(x) if isinstance(x, list) else x


def _mapping(name: str, plain: object) -> Mapping[str, Any]:
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{name}={show(plain)} must be a dictionary of its settings")
    return plain


def _vocabulary(plain: Mapping[str, Any]) -> Vocabulary:
    several = {name: plain.get(name, ()) for name in ("more_eos", "never")}
    for name, tokens in several.items():
        if not isinstance(tokens, list | tuple):
            raise ConfigError(f"vocabulary: {name}={show(tokens)} must be a list of tokens")
    made: Vocabulary = _filled("vocabulary", Vocabulary, {**plain, **{name: tuple(x) for name, x in several.items()}})
    marks = {"pad": made.pad, "bos": made.bos, "eos": made.eos}
    marks |= {f"{name}[{i}]": x for name, tokens in several.items() for i, x in enumerate(tokens)}
    for name, x in {"size": made.size, **marks}.items():
        check_integer("vocabulary", name, x, 0)
    if max(marks.values()) >= made.size:
        said = ", ".join(f"{name}={x}" for name, x in marks.items())
        raise ConfigError(f"vocabulary: size={made.size} tokens have no room for {said}")
    return made


def _filled(name: str, made: type, given: Mapping[str, Any]) -> Any:
    """An instance of a dataclass from its fields by name."""
    fields = dataclasses.fields(made)
    names = [field.name for field in fields]
    given = {
        FORMER.get(key, key) if key not in names and FORMER.get(key) in names else key: x for key, x in given.items()
    }
    for key in given:
        if key not in names:
            raise ConfigError(f"{name} has no setting {key!r}; {nearest(key, names)}")
    missing = [field.name for field in fields if field.default is dataclasses.MISSING and field.name not in given]
    if missing:
        raise ConfigError(f"{name} needs {', '.join(missing)}; got {', '.join(given) or 'nothing'}")
    return made(**given)
