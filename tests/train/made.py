"""A file of pairs and options of a run that takes a second."""

from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from regard.train.options import TrainOptions

WORDS = ["red", "green", "blue", "black", "white", "small", "large", "old", "new", "round"]


def pairs(path: Path, rows: int = 160) -> str:
    """Each source, and its words in the other order."""
    lines = []
    for i in range(rows):
        words = [WORDS[(i // 10**k) % 10] for k in range(2 + i % 3)] + [WORDS[i % 7]]
        lines.append(f"{' '.join(words)} {i}\t{i} {' '.join(reversed(words))}\n")
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


SMALL: dict[str, dict[str, Any]] = {
    "transformer": {"embed_dim": 16, "ffn_dim": 32, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1},
    "rnn": {"embed_dim": 16, "hidden_dim": 16, "align_dim": 8},
    "luong": {"embed_dim": 16, "hidden_dim": 16},
    "convs2s": {"embed_dim": 16, "hidden_dim": 16},
}


def options(folder: Path, model: str | None = "transformer", **changes: Any) -> TrainOptions:
    """A run of 9 steps with dropout, evaluated and kept now and then."""
    data = folder / "pairs.tsv"
    if not data.exists():
        pairs(data)
    settings: dict[str, Any] = {
        "files": (str(data),), "out": str(folder / "run"), "model": model, "model_settings": SMALL.get(model or ""),
        "steps": 9, "evaluate_every": 4, "checkpoint_every": 3, "vocab_size": 300, "batch_tokens": 128, "dropout": 0.2,
        "max_tokens": 64,
    }  # fmt: skip
    return TrainOptions(**{**settings, **changes})


def weights(folder: Path | str) -> dict[str, Tensor]:
    """The tensors of a finished run's last checkpoint."""
    last = sorted(Path(folder, "checkpoints").glob("step-*"))[-1]
    return safetensors.torch.load_file(last / "model.safetensors")
