"""What any checkpoint of the library `transformers` attends to in a text, on the attention that the library chooses."""

from pathlib import Path
from typing import Any

import torch

from regard.errors import DataError, UnsupportedError
from regard.lens.record import record
from regard.lens.recording_view import view_of
from regard.lens.view import View


def view_checkpoint(name: str | Path, text: str, *, grid: int = 64, top: int = 8, title: str = "") -> View:
    """What a checkpoint attends to, over the tokens of its own tokenizer.

    Args:
        name: a folder, or a name on the hub; only weights in safetensors are loaded, and no code.
        text: what it reads; of an encoder and a decoder, the decoder's start is all that is written.
        grid: bins on each side of a map, at most.
        top: largest weights that are kept of each token.
        title: of the view; the text by default.

    Returns:
        The maps of all its attentions.

    Raises:
        UnsupportedError: the library is not installed, or cannot load the checkpoint so.
        DataError: a text without tokens, or longer than the model reads.
    """
    try:
        import transformers
    except ImportError as error:
        raise UnsupportedError(f"{name}: regard loads no such model, and `transformers` is not installed") from error
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name)
        model: Any = transformers.AutoModel.from_pretrained(name, use_safetensors=True).eval()
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UnsupportedError(f"{name}: neither regard nor `transformers` loads it: {reason}") from error
    inputs = tokenizer(text, return_tensors="pt")
    ids = inputs["input_ids"]
    max_length = getattr(model.config, "max_position_embeddings", None)
    if not ids.numel() or (max_length is not None and ids.shape[1] > max_length):
        raise DataError(f"text has {ids.shape[1]} tokens; {name} reads 1 to {max_length}")
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.full((1, 1), model.config.decoder_start_token_id)
    with torch.no_grad(), record(model, grid=grid, top=top) as recording:
        model(**inputs)
    tokens = tokenizer.convert_ids_to_tokens(ids[0].tolist())
    labels: Any = tokens
    if model.config.is_encoder_decoder:
        labels = {"source": tokens, "target": tokenizer.convert_ids_to_tokens(inputs["decoder_input_ids"][0].tolist())}
    notes = [f"{path}: {reason}" for path, reason in recording.not_captured]
    return view_of(recording, labels, title=title or text, notes=notes)
