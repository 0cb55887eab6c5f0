"""How good is a translator after the same minutes from process start, against transformers' Seq2SeqTrainer?

Each side is a process of its own that reads the files of pairs, trains its subwords and its model, and is done when
the minutes are over: ours is the command line, the peer has the settings of issue 3. Then both decode the first 600
rows of test, beam 4.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import fresh, write
from translation import VOCABULARY, Corpus, corpus, options, prepared, read, texts

MINUTES, ROWS, BEAMS = 45.0, 600, 4
LEAD = 3.0  # BLEU above the peer's
LONGEST = 256  # tokens of a target
STEPS_TO_PLAN = 100_000  # of the peer, which the clock ends; its schedule does not depend on them


def ours(given: argparse.Namespace, files: Corpus, folder: Path) -> dict[str, Any]:
    """Train and evaluate by the command line; other options of `regard train` may follow `--`."""
    run = Path(given.out) if given.out else folder / "run"
    regard = [sys.executable, "-m", "regard"]
    command = [*regard, "train", files.train, "--valid", files.valid, "--out", str(run)]
    command += ["--minutes", str(given.minutes), "--threads", str(given.threads), *given.train]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    minutes = (time.perf_counter() - start) / 60
    command = [*regard, "evaluate", files.test, "--first", str(given.rows), "--beam", str(BEAMS), "--json"]
    command += ["--model", str(run), "--threads", str(given.threads)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    told = {name: config["training"][name] for name in ("step", "tokens", "valid_loss")}
    score = {name: found["scores"][name] for name in ("bleu", "chrf")}
    return {**score, "minutes": minutes, "unfinished": found["unfinished"], **told, "flags": given.train}


def peer(given: argparse.Namespace) -> None:
    """The peer's process: trains until the minutes are over, then decodes; prints what came of it."""
    import torch
    from peer import Deadline, decode, examples, trainer, untrained

    from regard.models.transformer import Transformer, TransformerConfig
    from regard.tasks.encoder_decoder import vocabulary_of
    from regard.tasks.evaluate import score

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = corpus(given, folder)
        task = prepared(files, folder, vocab_size=500 if given.quick else VOCABULARY)
        told = vocabulary_of(task.tokenizer)
        torch.manual_seed(1)
        size = "tiny" if given.quick else "small"
        model = untrained(Transformer(TransformerConfig.from_preset(size, told, dropout=0.1)))
        one = trainer(
            model,
            examples(task.data.train, range(task.counts["train"]), told.eos),
            told,
            folder / "peer",
            bf16=given.precision == "bfloat16",
            callbacks=[Deadline(time.time, given.started + 60 * given.minutes)],
            max_steps=STEPS_TO_PLAN,
        )
        one.train()
        minutes = (time.time() - given.started) / 60
        rows = texts(files.test, given.rows)
        sources = [ids[:LONGEST] for ids in task.tokenizer.encode_batch([source for source, _ in rows])]
        longest = 8 if given.quick else LONGEST
        found = decode(model.eval(), sources, beams=BEAMS, batch_size=32, max_length=longest)
        scores = score(task.tokenizer.decode_batch(found), [target for _, target in rows])
        told = {"minutes": minutes, "step": one.state.global_step, "tokens": one.tokens, "precision": given.precision}
        print(json.dumps({**scores._asdict(), **told}))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--minutes", type=float, help=f"{MINUTES:g} by default")
    parser.add_argument("--rows", type=int, default=ROWS, help="of test")
    parser.add_argument("--sides", nargs="+", choices=("regard", "peer"), default=["regard", "peer"])
    parser.add_argument("--out", help="folder of our run, to keep it")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of the peer")
    parser.add_argument("--peer-bleu", type=float, help="of an earlier run of the peer, where only ours is run")
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    parser.add_argument("train", nargs="*", help="after --: options of `regard train`")
    given = read(parser)
    if given.started is not None:
        peer(given)
        return
    given.minutes = given.minutes or (0.5 if given.quick else MINUTES)
    if given.quick:
        given.rows = 8
        given.train = ["--size", "tiny", "--vocab-size", "500", "--batch-tokens", "512", *given.train]
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = corpus(given, folder)
        if "regard" in given.sides:
            found["regard"] = ours(given, files, folder)
            print(found["regard"], flush=True)
        if "peer" in given.sides:
            words = ["--started", str(time.time()), "--minutes", str(given.minutes), "--rows", str(given.rows)]
            words += ["--threads", str(given.threads), "--precision", given.precision]
            words += ["--pairs", given.pairs] if given.pairs else []
            found["peer"] = fresh(__file__, *words, *(["--quick"] if given.quick else []))
    write("quality", cases_of(given, files.name, found), quick=given.quick)


def cases_of(given: argparse.Namespace, data: str, found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The lead, if both are known, and what each side reached."""
    rows = f"first {given.rows} rows of test, {data}"
    shared = {"threads": given.threads, "beams": BEAMS, "vocabulary": VOCABULARY, "data": data}
    cases: list[dict[str, Any]] = []
    other = found["peer"]["bleu"] if "peer" in found else given.peer_bleu
    if "regard" in found and other is not None:
        lead = {"value": round(found["regard"]["bleu"] - other, 2), "bar": LEAD, "at_least": True, "peer_bleu": other}
        case = f"BLEU above Seq2SeqTrainer's after {given.minutes:g} minutes each, {rows}"
        cases.append({"case": case, "unit": "BLEU", **lead, **shared})
    for side, told in found.items():
        for unit, key in (("BLEU", "bleu"), ("chrF", "chrf")):
            case = f"{unit} of {'regard' if side == 'regard' else 'Seq2SeqTrainer'}, {given.minutes:g} minutes, {rows}"
            cases.append({"case": case, "unit": unit, "value": round(told[key], 2), "bar": None, **told, **shared})
    return cases


if __name__ == "__main__":
    main()
