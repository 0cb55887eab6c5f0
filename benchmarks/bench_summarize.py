"""How good are summarizers of equal training: the pointer-generator, the Transformer, and transformers' BART?

Each run is a process of its own on one thread, with so many steps that other work on the machine changes no score; its
minutes are the processor time of the whole process. BART has the size and batches of the Transformer, subwords made in
the same way, and as many minutes as the pointer-generator; its rate is the better of two, tried on held-out documents.
Runs that --out holds are not repeated.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import fresh, processor_minutes, replaced, write
from torch.nn import functional

import regard as rg
from regard.data.rows import read_pairs
from regard.tasks.rouge import copied_share, first_sentence, first_words, mean_words, rouge
from regard.tasks.summarize import Summarize
from regard.train.options import TrainOptions

EVALUATIONS = 4  # in a run
NAMES = {
    "pointer-generator": "the pointer-generator",
    "transformer": "the Transformer",
    "bart": "transformers' BART of its size",
}
BATCH_TOKENS = 2048  # regard's default
MAX_TOKENS = 256
RATES, SCREENED = (5e-4, 1e-3), 300  # tried for BART, and for how many steps


class Run(NamedTuple):
    """A row of the table."""

    model: str
    seed: int
    steps: int  # that take about the same processor time


RUNS = [
    Run(model, seed, steps)
    for seed in (1, 2)
    for model, steps in (("pointer-generator", 3_000), ("transformer", 7_500), ("bart", 0))
]


def rows_of(path: str) -> list[tuple[str, str]]:
    """Documents and summaries of a file."""
    return [(pair.source, pair.target) for pair in read_pairs([path], fields=("document", "summary"))]


def scores(texts: Sequence[str], rows: Sequence[tuple[str, str]], known: set[str]) -> dict[str, float]:
    """ROUGE of summaries, and the share of the references' words outside the vocabulary that stand in them."""
    references = [summary for _, summary in rows]
    found = {unit: getattr(rouge(texts, references), unit) for unit in ("rouge1", "rouge2", "rougeL")}
    return {**found, "copied": 100 * (copied_share(texts, references, known) or 0.0)}


def bart(run: Run, folder: Path, files: dict[str, str], minutes: float) -> dict[str, Any]:
    """Train transformers' BART, and summarize the test documents.

    Args:
        run: the seed; as many steps as the minutes allow.
        folder: for the prepared documents, of which the subwords are made.
        files: paths of the parts.
        minutes: of processor time to train.
    """
    from transformers import BartConfig, BartForConditionalGeneration

    task = Summarize(TrainOptions(files=(files["train"],), valid=files["valid"], task="summarize", model="transformer"))
    task.prepare(folder / "data", lambda doing, rows: None)
    tokenizer, sizes = task.tokenizer, task.build().config
    vocabulary = sizes.vocabulary

    def encoded(path: str) -> list[tuple[list[int], list[int]]]:
        rows = rows_of(path)
        sources = tokenizer.encode_batch([source for source, _ in rows])
        targets = tokenizer.encode_batch([target for _, target in rows])
        return [(s[:MAX_TOKENS], t) for s, t in zip(sources, targets, strict=True) if s and t and len(t) <= MAX_TOKENS]

    def padded(rows: list[list[int]], fill: int) -> torch.Tensor:
        longest = max(map(len, rows))
        return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])

    def model() -> Any:
        torch.manual_seed(run.seed)
        config = BartConfig(
            vocab_size=vocabulary.size, d_model=sizes.embed_dim, encoder_layers=sizes.encoder_layers,
            decoder_layers=sizes.decoder_layers, encoder_attention_heads=sizes.num_heads,
            decoder_attention_heads=sizes.num_heads, encoder_ffn_dim=sizes.hidden_dim, decoder_ffn_dim=sizes.hidden_dim,
            dropout=sizes.dropout, max_position_embeddings=MAX_TOKENS + 2, scale_embedding=True,
            pad_token_id=vocabulary.pad, bos_token_id=vocabulary.bos, eos_token_id=vocabulary.eos,
            decoder_start_token_id=vocabulary.bos, forced_eos_token_id=None,
        )  # fmt: skip
        return BartForConditionalGeneration(config)

    def loss(module: Any, batch: list[tuple[list[int], list[int]]], smoothing: float) -> torch.Tensor:
        inputs = padded([source for source, _ in batch], vocabulary.pad)
        read = padded([[vocabulary.bos, *target] for _, target in batch], vocabulary.pad)
        labels = padded([[*target, vocabulary.eos] for _, target in batch], -100)
        with torch.autocast("cpu", torch.bfloat16):
            logits = module(
                input_ids=inputs, attention_mask=inputs != vocabulary.pad, decoder_input_ids=read, use_cache=False
            ).logits
        flat: torch.Tensor = functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), label_smoothing=smoothing, ignore_index=-100
        )
        return flat

    def batches(rows: list[tuple[list[int], list[int]]], generator: np.random.Generator) -> list[np.ndarray[Any, Any]]:
        size = np.array([max(len(source), len(target)) + 1 for source, target in rows])
        order = np.argsort(size + generator.random(len(size)), kind="stable")
        cut, first = [], 0
        for i, row in enumerate(order):
            if (i + 1 - first) * size[row] > BATCH_TOKENS:
                cut.append(order[first:i])
                first = i
        cut.append(order[first:])
        generator.shuffle(cut)  # type: ignore[arg-type]
        return cut

    def trained(rate: float, steps: int) -> Any:
        module, generator = model().train(), np.random.default_rng(run.seed)
        optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=0.01)
        queue: list[np.ndarray[Any, Any]] = []
        step, warmup = 0, max(1, steps // 20)
        while step < steps:
            queue = queue or batches(train, generator)
            module.zero_grad()
            value = loss(module, [train[i] for i in queue.pop()], 0.1)
            value.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            factor = min((step + 1) / warmup, (steps - step) / (steps - warmup))
            optimizer.param_groups[0]["lr"] = rate * factor
            optimizer.step()
            step += 1
            if step % 200 == 0:
                print(f"bart {step}/{steps} {value.item():.3f}", file=sys.stderr, flush=True)
        return module.eval()

    @torch.no_grad()
    def held_out(module: Any) -> float:
        parts = batches(valid, np.random.default_rng(0))
        return float(np.mean([loss(module, [valid[i] for i in part], 0.0).item() for part in parts]))

    train, valid = encoded(files["train"]), encoded(files["valid"])
    begun = time.process_time()
    tried = {rate: trained(rate, SCREENED) for rate in RATES}
    per_step = (time.process_time() - begun) / (SCREENED * len(RATES))
    rates = {rate: held_out(module) for rate, module in tried.items()}
    best, steps = min(rates, key=rates.__getitem__), max(4, round(60 * minutes / per_step))
    begun = time.process_time()
    module = trained(best, steps)
    spent = (time.process_time() - begun) / 60
    texts: list[str] = []
    rows = rows_of(files["test"])
    sources = [ids[:MAX_TOKENS] for ids in tokenizer.encode_batch([source for source, _ in rows])]
    with torch.no_grad():
        for first in range(0, len(sources), 32):
            inputs = padded(sources[first : first + 32], vocabulary.pad)
            written = module.generate(
                inputs,
                attention_mask=(inputs != vocabulary.pad).long(),
                num_beams=4,
                do_sample=False,
                max_new_tokens=64,
            )
            ends = (vocabulary.pad, vocabulary.bos, vocabulary.eos)
            texts += [tokenizer.decode([i for i in ids if i not in ends]) for ids in written.tolist()]
    return {
        "texts": texts, "minutes": round(spent, 1), "steps": steps, "rate": best, "valid_loss": held_out(module),
        "rates": {str(rate): round(x, 3) for rate, x in rates.items()},
        "parameters": sum(p.numel() for p in module.parameters()),
    }  # fmt: skip


def ours(run: Run, folder: Path, files: dict[str, str]) -> dict[str, Any]:
    """Train one of regard's models, and summarize the test documents."""
    arguments = [
        *("train", files["train"], "--valid", files["valid"], "--task", "summarize", "--model", run.model),
        *("--out", str(folder), "--steps", str(run.steps), "--seed", str(run.seed), "--threads", "1"),
        *("--evaluate-every", str(-(-run.steps // EVALUATIONS))),
    ]
    minutes = processor_minutes(arguments)
    summarizer = rg.load(str(folder))
    texts = [summary.text for summary in summarizer.summarize([document for document, _ in rows_of(files["test"])])]
    training = summarizer.config["training"]
    parameters = sum(p.numel() for p in summarizer.module.parameters())
    return {"texts": texts, "minutes": round(minutes, 1), "steps": run.steps, "parameters": parameters,
            "valid_loss": training["valid_loss"]}  # fmt: skip


def cases(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """ROUGE of each run beside the two baselines, and the share of rare words copied."""
    files = {part: str(Path(given.summaries) / f"{part}.jsonl.gz") for part in ("train", "valid", "test")}
    rows = rows_of(files["test"])
    references = [summary for _, summary in rows]
    count = mean_words(references)
    for case, texts in (
        ("summaries: the first sentence", [first_sentence(document) for document, _ in rows]),
        (f"summaries: the first {count} words", [first_words(document, count) for document, _ in rows]),
    ):
        for unit in ("rouge1", "rouge2", "rougeL"):
            yield {"case": case, "unit": unit, "value": round(getattr(rouge(texts, references), unit), 2), "bar": None}
    for run in (run for run in RUNS if run.model in given.models and run.seed in given.seeds):
        found = kept(run._replace(steps=20) if given.quick else run, folder, files)
        known = rg.load(str(folder / f"pointer-generator-{run.seed}")).tokenizer  # type: ignore[attr-defined]
        texts = found.pop("texts")
        about = {**run._asdict(), **found, "documents": len(rows), "threads": 1}
        case = f"summaries of {NAMES[run.model]}, seed {run.seed}"
        for unit, value in scores(texts, rows, set(known.pieces(range(known.size)))).items():
            yield {"case": case, "unit": unit, "value": round(value, 2), "bar": None, **about}


def kept(run: Run, folder: Path, files: dict[str, str]) -> dict[str, Any]:
    """The result of a run, which stands in the folder afterwards."""
    name = f"{run.model}-{run.seed}"
    file = folder / f"{name}.json"
    if file.exists():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    if run.model == "bart":
        other = folder / f"pointer-generator-{run.seed}.json"
        minutes = json.loads(other.read_text(encoding="utf-8"))["minutes"]
        told = {"run": run, "folder": str(folder / name), "files": files, "minutes": minutes}
        found = fresh(__file__, "--bart", json.dumps(told))
    else:
        found = ours(run, folder / name, files)
    file.write_text(json.dumps(found), encoding="utf-8")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summaries", default=os.environ.get("REGARD_SUMMARIES"), help="folder of *.jsonl.gz")
    parser.add_argument("--out", help="folder of the runs, to keep them and go on from them")
    parser.add_argument("--models", nargs="+", default=["pointer-generator", "transformer", "bart"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="try the script out")
    parser.add_argument("--bart", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.bart:
        told = json.loads(given.bart)
        print(json.dumps(bart(Run(*told["run"]), Path(told["folder"]), told["files"], told["minutes"])))
        return
    if given.summaries is None:
        parser.error(
            "--summaries FOLDER, or $REGARD_SUMMARIES: documents and summaries as train, valid and test.jsonl.gz"
        )
    with tempfile.TemporaryDirectory() as name:
        write("summarize", replaced("summarize", cases(given, Path(given.out or name))), quick=given.quick)


if __name__ == "__main__":
    main()
