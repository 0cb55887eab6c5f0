"""Tiny random Whisper checkpoints, in the hub's layout."""

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import decoders, models, pre_tokenizers

from regard.models.registry import build
from regard.models.seq2seq import Vocabulary
from regard.models.whisper import WhisperConfig
from regard.models.whisper_names import to_whisper

LANGUAGES = ("en", "it", "nl")
POSITIONS = 50  # of a window of 1 s


def special_tokens(*, multilingual: bool) -> list[str]:
    """In the order of their ids, from 256 on; those of times follow, without names."""
    languages = [f"<|{code}|>" for code in LANGUAGES] if multilingual else ["<|en|>"]
    marks = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
    return ["<|endoftext|>", "<|startoftranscript|>", *languages, *(f"<|{mark}|>" for mark in marks)]


def write_tokenizer(folder: Path, *, multilingual: bool) -> dict[str, int]:
    """Byte-level BPE without merges; the ids of its special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    subwords = tokenizers.Tokenizer(models.BPE(vocab={x: i for i, x in enumerate(alphabet)}, merges=[]))
    subwords.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    subwords.decoder = decoders.ByteLevel()
    subwords.add_special_tokens(special_tokens(multilingual=multilingual))
    subwords.save(str(folder / "tokenizer.json"))
    return {name: subwords.token_to_id(name) for name in special_tokens(multilingual=multilingual)}


def write_whisper(folder: Path, *, multilingual: bool = True, times: bool = True, **changes: Any) -> Path:
    """A folder of a random model with a window of 1 s; `times`: whether it may write times where none are asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = write_tokenizer(folder, multilingual=multilingual)
    end, start, no_times = ids["<|endoftext|>"], ids["<|startoftranscript|>"], ids["<|notimestamps|>"]
    torch.manual_seed(0)
    sizes = {
        "num_mels": 8, "embed_dim": 16, "num_heads": 2, "ffn_dim": 32, "encoder_layers": 1, "decoder_layers": 2,
        "source_length": POSITIONS, "max_length": 24, **changes,
    }  # fmt: skip
    vocabulary = Vocabulary(size=no_times + 2 + POSITIONS, pad=end, bos=start, eos=end)
    model = build(WhisperConfig(vocabulary=vocabulary, **sizes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=1.0 if "embedding" in name or "positions" in name else 0.4)
    fields, state = to_whisper(model)
    state = {name: x for name, x in state.items() if name != "proj_out.weight"}
    save_file({name: x.contiguous() for name, x in state.items()}, str(folder / "model.safetensors"))
    generation = {
        "decoder_start_token_id": start, "eos_token_id": end, "pad_token_id": end, "bos_token_id": end,
        "no_timestamps_token_id": no_times, "is_multilingual": multilingual, "max_length": sizes["max_length"],
        "begin_suppress_tokens": [ids["<|endoftext|>"], 220 % 256], "alignment_heads": [[0, 1], [1, 0]],
        "suppress_tokens": [3, 5, *range(start, no_times if times else vocabulary.size)],
        "max_initial_timestamp_index": POSITIONS,
        "prev_sot_token_id": ids["<|startofprev|>"],
    }  # fmt: skip
    if multilingual:
        generation["lang_to_id"] = {f"<|{code}|>": ids[f"<|{code}|>"] for code in LANGUAGES}
        generation["task_to_id"] = {name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")}
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder
