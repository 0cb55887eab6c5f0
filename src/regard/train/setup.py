"""What a run starts with: its device, its precision and its model."""

import os
from typing import Any

import torch

from regard.data.rows import PairReader, columns_of
from regard.data.tokenizer import Tokenizer
from regard.errors import ConfigError
from regard.layers.attention_config import AttentionConfig
from regard.models.registry import config_from_plain
from regard.models.seq2seq import Seq2Seq, Vocabulary
from regard.models.transformer import size_settings
from regard.train.options import TrainOptions, to_plain
from regard.trained import folder as folders
from regard.trained.device import device_of

# Options that a model to start from has decided.
OF_MODEL = ("model", "size", "model_settings", "attention", "dropout", "vocab_size")


def model_config(options: TrainOptions, vocabulary: Vocabulary) -> Any:
    """The configuration of the model that the options name.

    Args:
        options: of the run.
        vocabulary: of source and target together.

    Returns:
        The model's configuration.

    Raises:
        ConfigError: an unknown model, size or setting.
    """
    settings = dict(options.model_settings or {})
    for name in ("vocabulary", "attention"):
        if name in settings:
            raise ConfigError(
                f"model_settings: {name}={settings[name]!r} is not set there, but by an option of its own"
            )
    if options.dropout is not None:
        settings.setdefault("dropout", options.dropout)
    if options.size is not None:
        if options.model != "transformer":
            raise ConfigError(f"size={options.size!r}: only transformer has sizes, not {options.model}; set its fields")
        settings = {**size_settings(options.size), **settings}
    if options.model == "transformer":
        settings.setdefault("norm", "pre")  # learns in fewer steps, and at higher rates, than the published one
    attention = AttentionConfig.from_plain(options.attention or {})
    return config_from_plain(options.model, {**settings, "vocabulary": vocabulary, "attention": attention})


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary that a model needs for a tokenizer."""
    return Vocabulary(size=tokenizer.size, pad=tokenizer.pad, bos=tokenizer.bos, eos=tokenizer.eos)


def pair_reader(options: TrainOptions) -> PairReader:
    """What reads the pairs that the options name.

    Args:
        options: of the run.

    Returns:
        The reader.

    Raises:
        ConfigError: fields that name no two columns.
        DataError: a file that does not exist.
    """
    fields = (options.source_field, options.target_field)
    return PairReader(
        files=options.files,
        parallel=options.parallel,
        columns=columns_of(fields),
        fields=fields,
        skip_bad_rows=options.skip_bad_rows,
    )


def pick_device(name: str) -> torch.device:
    """The device of a name; under torchrun, a GPU for each process.

    Raises:
        ConfigError: a device that is not there.
    """
    device = device_of(name)
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        device = device_of(f"cuda:{os.environ['LOCAL_RANK']}")
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # where collectives of objects go
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """What matrix products are computed in; "auto" is bfloat16 where the device multiplies it faster."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return torch.bfloat16 if fast else torch.float32


def read_start(options: TrainOptions) -> tuple[Seq2Seq, Tokenizer] | None:
    """The model to go on from."""
    if options.start is None:
        return None
    plain = to_plain(options)
    given = {name: plain[name] for name in OF_MODEL if name in plain}
    if given:
        said = ", ".join(f"{name}={x!r}" for name, x in given.items())
        raise ConfigError(f"start={options.start!r} has a model and a tokenizer already, which {said} cannot change")
    module, tokenizer, _ = folders.read(options.start)
    return module, tokenizer
