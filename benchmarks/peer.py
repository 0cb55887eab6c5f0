"""The peers: transformers' MarianMTModel, BART and Seq2SeqTrainer, in their fastest exact setting."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regard.data.store import RecordStore
from regard.models.marian import to_marian
from regard.models.seq2seq import Vocabulary
from regard.models.transformer import Transformer

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import transformers  # after its environment
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    PreTrainedModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

transformers.logging.set_verbosity_error()
warnings.filterwarnings("ignore", module="transformers|accelerate|torch.utils.data")
PAIRS = 64  # a batch, as in the peer's figures of issue 3
IGNORED = -100


def marian(model: Transformer) -> MarianMTModel:
    """Marian with the weights of a Transformer, decoded by nothing but them."""
    peer = untrained(model)
    left = peer.load_state_dict({name: x.clone() for name, x in to_marian(model)[1].items()}, strict=False)
    missing = [name for name in left.missing_keys if "embed_positions" not in name]  # which it computes
    if missing or left.unexpected_keys:
        raise SystemExit(f"Marian has other weights: {missing}, {left.unexpected_keys}")
    return peer


def untrained(model: Transformer) -> MarianMTModel:
    """Marian of the same size, with weights as it draws them itself."""
    fields, _ = to_marian(model)
    peer = MarianMTModel(MarianConfig(**{**fields, "forced_eos_token_id": None, "bad_words_ids": None}))
    peer.generation_config.update(forced_eos_token_id=None, bad_words_ids=None, max_length=None)
    return peer


def bart(model: Transformer) -> BartForConditionalGeneration:
    """BART of the same size, with weights as it draws them itself."""
    fields = to_marian(model)[0]
    sizes = {name: x for name, x in fields.items() if name in BartConfig().to_dict() and name != "architectures"}
    peer = BartForConditionalGeneration(BartConfig(**{**sizes, "forced_eos_token_id": None}))
    peer.generation_config.update(forced_eos_token_id=None, max_length=None)
    return peer


def examples(store: RecordStore, rows: Sequence[int], eos: int) -> list[dict[str, list[int]]]:
    """Pairs as the trainer takes them, in memory."""
    pairs = [store.row(row) for row in rows]
    return [{"input_ids": [*source.tolist(), eos], "labels": [*target.tolist(), eos]} for source, target in pairs]


def collator(vocabulary: Vocabulary) -> Callable[[list[dict[str, list[int]]]], dict[str, Tensor]]:
    """Pads the examples of a batch, by numpy: faster than the package's own."""

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        source = _padded([x["input_ids"] for x in batch], vocabulary.pad)
        before = _padded([[vocabulary.bos, *x["labels"][:-1]] for x in batch], vocabulary.pad)
        labels = _padded([x["labels"] for x in batch], IGNORED)
        mask = (source != vocabulary.pad).long()
        return {"input_ids": source, "attention_mask": mask, "decoder_input_ids": before, "labels": labels}

    return collate


def _padded(rows: list[list[int]], pad: int) -> Tensor:
    found = np.full((len(rows), max(map(len, rows))), pad, np.int64)
    for i, row in enumerate(rows):
        found[i, : len(row)] = row
    return torch.from_numpy(found)


class Deadline(TrainerCallback):
    """Ends the training when a clock says so."""

    def __init__(self, clock: Callable[[], float], end: float) -> None:
        self.clock, self.end = clock, end

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = self.clock() >= self.end


class CountingTrainer(Seq2SeqTrainer):
    """Counts the target tokens of its steps."""

    tokens = 0

    def training_step(self, model: Any, inputs: dict[str, Tensor], *rest: Any, **named: Any) -> Tensor:
        self.tokens += int((inputs["labels"] != IGNORED).sum())
        return super().training_step(model, inputs, *rest, **named)


def trainer(
    model: PreTrainedModel,
    data: list[dict[str, list[int]]],
    vocabulary: Vocabulary,
    folder: Path,
    *,
    bf16: bool,
    callbacks: list[Any],
    **arguments: Any,
) -> CountingTrainer:
    """A trainer of issue 3's settings: AdamW, inverse square root from 1e-3, grouped by length, smoothed labels."""
    settings = Seq2SeqTrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        bf16=bf16,
        per_device_train_batch_size=PAIRS,
        train_sampling_strategy="group_by_length",
        learning_rate=1e-3,
        lr_scheduler_type="inverse_sqrt",
        optim="adamw_torch_fused",
        adam_beta2=0.98,
        adam_epsilon=1e-9,
        weight_decay=0.01,
        max_grad_norm=1.0,
        label_smoothing_factor=0.1,
        remove_unused_columns=False,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=1,
        **{"warmup_steps": 800, **arguments},
    )
    made = CountingTrainer(
        model=model, args=settings, train_dataset=data, data_collator=collator(vocabulary), callbacks=callbacks
    )
    made.remove_callback(transformers.PrinterCallback)
    return made


def decode(
    model: PreTrainedModel, sources: Sequence[Sequence[int]], *, beams: int, batch_size: int, max_length: int
) -> list[list[int]]:
    """The tokens of each source, sorted by length into batches as ours are; without bos and eos."""
    config = model.config
    order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
    found: list[list[int]] = [[] for _ in sources]
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            source = _padded([[*sources[i], config.eos_token_id] for i in rows], config.pad_token_id)
            tokens = model.generate(
                input_ids=source,
                attention_mask=(source != config.pad_token_id).long(),
                num_beams=beams,
                do_sample=False,
                length_penalty=1.0,
                early_stopping=False,
                max_new_tokens=max_length,
            )
            for i, row in zip(rows, tokens[:, 1:].tolist(), strict=True):
                found[i] = row[: row.index(config.eos_token_id)] if config.eos_token_id in row else row
    return found
