"""How good are summarizers of equal training: the pointer-generator, the Transformer, and transformers' BART?

Each run is a process of its own on one thread, with so many steps that other work on the machine changes no score; its
minutes are the processor time of the whole process. BART has the size of the Transformer, subwords made in the same
way, the settings of the peer that learned to translate (`peer.py`), and as many minutes as the pointer-generator. Runs
that --out holds are not repeated.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import fresh, kept, processor_minutes, replaced, write

import regard as rg
from regard.data.rows import read_pairs
from regard.models.transformer import Transformer, TransformerConfig
from regard.tasks.encoder_decoder import vocabulary_of
from regard.tasks.rouge import copied_share, first_sentence, first_words, mean_words, rouge
from regard.tasks.summarize import Summarize
from regard.train.options import TrainOptions

EVALUATIONS = 4  # in a run
NAMES = {
    "pointer-generator": "the pointer-generator",
    "transformer": "the Transformer",
    "bart": "transformers' BART of its size",
}
MAX_TOKENS, MAX_SUMMARY = 256, 64
MOST_STEPS, WARMUP = 100_000, 200  # of BART, whose minutes end the training


class Run(NamedTuple):
    """A row of the table."""

    model: str
    seed: int
    steps: int  # which take about the same processor time; of BART, what its minutes allow


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
    measured = rouge(texts, references)._asdict()
    return {**measured, "copied": 100 * (copied_share(texts, references, known) or 0.0)}


def bart(seed: int, folder: Path, files: dict[str, str], minutes: float) -> dict[str, Any]:
    """Train transformers' BART, and summarize the test documents.

    Args:
        seed: of its weights.
        folder: for the prepared documents, of which the subwords are made.
        files: paths of the parts.
        minutes: of processor time to train.
    """
    import peer

    task = Summarize(TrainOptions(files=(files["train"],), valid=files["valid"], task="summarize", model="transformer"))
    task.prepare(folder / "data", lambda doing, rows: None)
    vocabulary = vocabulary_of(task.tokenizer)
    torch.manual_seed(seed)
    model = peer.bart(Transformer(TransformerConfig.from_preset("small", vocabulary, norm="post", dropout=0.1)))
    start = time.process_time()
    trainer = peer.trainer(
        model,
        peer.examples(task.data.train, range(task.counts["train"]), vocabulary.eos),
        vocabulary,
        folder / "bart",
        bf16=True,
        callbacks=[peer.Deadline(time.process_time, start + 60 * minutes)],
        max_steps=MOST_STEPS,
        warmup_steps=WARMUP,
    )
    trainer.train()
    spent = (time.process_time() - start) / 60
    documents = [document for document, _ in rows_of(files["test"])]
    sources = [ids[:MAX_TOKENS] for ids in task.tokenizer.encode_batch(documents)]
    tokens = peer.decode(model.float().eval(), sources, beams=4, batch_size=32, max_length=MAX_SUMMARY)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"texts": task.tokenizer.decode_batch(tokens), "minutes": round(spent, 1), "parameters": parameters,
            "steps": trainer.state.global_step}  # fmt: skip


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
        for unit, value in rouge(texts, references)._asdict().items():
            yield {"case": case, "unit": unit, "value": round(value, 2), "bar": None}
    for run in (run for run in RUNS if run.model in given.models and run.seed in given.seeds):
        run = run._replace(steps=20) if given.quick else run
        result = kept(folder / f"{run.model}-{run.seed}.json", partial(result_of, run, folder, files))
        known = rg.load(str(folder / f"pointer-generator-{run.seed}")).tokenizer
        texts = result.pop("texts")
        about = {**run._asdict(), **result, "documents": len(rows), "threads": 1}
        case = f"summaries of {NAMES[run.model]}, seed {run.seed}"
        for unit, value in scores(texts, rows, set(known.pieces(range(known.size)))).items():
            yield {"case": case, "unit": unit, "value": round(value, 2), "bar": None, **about}


def result_of(run: Run, folder: Path, files: dict[str, str]) -> dict[str, Any]:
    """The summaries of a run, and what is known of its training."""
    path = folder / f"{run.model}-{run.seed}"
    if run.model != "bart":
        return ours(run, path, files)
    minutes = json.loads((folder / f"pointer-generator-{run.seed}.json").read_text(encoding="utf-8"))["minutes"]
    job = {"seed": run.seed, "folder": str(path), "files": files, "minutes": minutes}
    return fresh(__file__, "--bart", json.dumps(job))


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
        job = json.loads(given.bart)
        print(json.dumps(bart(job["seed"], Path(job["folder"]), job["files"], job["minutes"])))
        return
    if given.summaries is None:
        parser.error(
            "--summaries FOLDER, or $REGARD_SUMMARIES: documents and summaries as train, valid and test.jsonl.gz"
        )
    with tempfile.TemporaryDirectory() as name:
        write("summarize", replaced("summarize", cases(given, Path(given.out or name))), quick=given.quick)


if __name__ == "__main__":
    main()
