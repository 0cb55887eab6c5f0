"""How fast is int8, against CTranslate2's int8 on the same weights and against float32, and what does it cost?

Transformer base has random weights and never ends a sentence by itself, so that all write the same number of tokens;
the other translator is the one that the package ships. Times are the best of turns in alternation, since the machine
may be shared.
"""

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from bench_decoding import REST, SEARCHES, Tokens, ctranslate, endless
from common import write
from peer import marian
from translation import corpus, options, read, texts

from regard.checkpoints.folder import WEIGHTS
from regard.compress.quantize import measure
from regard.decode.generate import generate
from regard.decode.search import Greedy
from regard.layers.quantization import quantize_maps
from regard.models.bert import Bert, BertConfig
from regard.models.seq2seq import Vocabulary
from regard.tasks.bootstrap import paired_difference
from regard.tasks.load import load

VOCABULARY = 8000
BARS = {("greedy", 32): 1.0, ("beam 4", 32): 1.15, ("greedy", 1): 0.9, ("beam 4", 1): 1.5}  # against CTranslate2
SHIPPED_BARS = {32: 1.4, 1: 1.6}  # against float32, by batch
BLEU_BAR, BYTES_BAR = 0.3, 8e6
BERT_SHAPE = (8, 128)


def best(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of the fastest of some turns of each, in alternation, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            time.sleep(REST)
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: min(times) for name, times in seconds.items()}


def base(given: Any, folder: Path) -> Iterator[dict[str, Any]]:
    """Transformer base in int8 against CTranslate2's int8, and against its own float32."""
    full = endless("base", Vocabulary(size=VOCABULARY), quick=given.quick)
    run_peer = ctranslate(marian(full).eval(), folder, given.threads, compute_type="int8")
    made = quantize_maps(copy.deepcopy(full))
    lengths = torch.randint(6, 40, (given.sentences,), generator=torch.Generator().manual_seed(1)).tolist()
    sources = [[10 + (31 * i + 7 * j) % (VOCABULARY - 10) for j in range(length)] for i, length in enumerate(lengths)]
    for batch in (32, 1):
        some = sources if batch > 1 else sources[:: max(1, len(sources) // 8)]
        for title, search in SEARCHES.items():
            beams = 1 if isinstance(search, Greedy) else search.size

            def run(model: Any, some: Tokens = some, search: Any = search, batch: int = batch) -> None:
                generate(model, some, search=search, batch_size=batch, max_length=given.length)

            def peer(some: Tokens = some, beams: int = beams, batch: int = batch) -> None:
                run_peer(some, beams=beams, batch_size=batch, max_length=given.length)

            runs = {"int8": lambda run=run: run(made), "float32": lambda run=run: run(full), "CTranslate2": peer}
            seconds = best(runs, given.repeats)
            rates = {name: round(len(some) / x, 3) for name, x in seconds.items()}
            shared = {"unit": "x its rate", "at_least": True, "sentences_a_second": rates}
            case = f"int8, base, random weights, {title}, batch {batch}, against"
            value = round(seconds["CTranslate2"] / seconds["int8"], 3)
            yield {"case": f"{case} CTranslate2 int8", "value": value, "bar": BARS[title, batch], **shared}
            value = round(seconds["float32"] / seconds["int8"], 3)
            yield {"case": f"{case} its float32", "value": value, "bar": None, **shared}


def shipped(given: Any, folder: Path) -> Iterator[dict[str, Any]]:
    """The shipped model in int8 against its float32: size, speed, BLEU."""
    full, made = load(), load(dtype="int8")
    made.save(folder)
    size = (folder / WEIGHTS).stat().st_size
    about = {"case": "int8, the shipped model's file of weights", "unit": "MB", "bar": BYTES_BAR / 1e6}
    yield {**about, "value": round(size / 1e6, 2)}
    pairs = texts(corpus(given, folder).test, given.rows)
    lines = [source for source, _ in pairs]
    for batch in (32, 1):
        some = lines[: given.sentences] if batch > 1 else lines[:16]
        runs = {
            name: lambda model=model, some=some, batch=batch: model.translate(some, batch_size=batch)
            for name, model in (("int8", made), ("float32", full))
        }
        seconds = best(runs, given.repeats)
        value, bar = round(seconds["float32"] / seconds["int8"], 3), SHIPPED_BARS[batch]
        case = f"int8, the shipped model, beam 4, batch {batch}, against its float32"
        yield {"case": case, "value": value, "unit": "x its rate", "bar": bar, "at_least": True}
    before, after = (measure(model, pairs, batch_size=32) for model in (full, made))
    change = paired_difference(before.scores, after.scores)
    about = {"before": before.score, "after": after.score, "interval_95": [change.low, change.high], "rows": len(pairs)}
    case = {"case": "int8, the shipped model, BLEU below its float32, mean of groups of rows", "unit": "BLEU"}
    yield {**case, "value": round(-change.mean, 3), "bar": BLEU_BAR, **about}


def encoder(given: Any) -> Iterator[dict[str, Any]]:
    """BERT base, random weights, in int8 against its float32."""
    torch.manual_seed(0)
    config = BertConfig.from_preset("base", **({"num_layers": 1} if given.quick else {}))
    full = Bert(config).eval()
    made = quantize_maps(copy.deepcopy(full))
    tokens = torch.randint(1000, 20_000, BERT_SHAPE)
    with torch.inference_mode():
        exact, hidden = full(tokens).hidden, made(tokens).hidden
        seconds = best({"int8": lambda: made(tokens), "float32": lambda: full(tokens)}, 3 * given.repeats)
    case = {"case": "int8, BERT-base, random weights, 8 x 128 tokens, against its float32", "unit": "x its rate"}
    value = round(seconds["float32"] / seconds["int8"], 3)
    error = float((hidden - exact).norm() / exact.norm())
    yield {**case, "value": value, "bar": None, "at_least": True, "relative_error": error, "seconds": seconds}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--length", type=int, default=32, help="tokens that a model with random weights writes")
    parser.add_argument("--rows", type=int, default=300, help="pairs that BLEU is measured on")
    parser.add_argument("--repeats", type=int, default=3)
    given = read(parser)
    if given.quick:
        given.sentences, given.length, given.rows, given.repeats = 6, 6, 16, 1
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, part) for part in ("base", "shipped")]
        for folder in folders:
            folder.mkdir()
        cases = (
            case for part in (base(given, folders[0]), shipped(given, folders[1]), encoder(given)) for case in part
        )
        write("int8", cases, quick=given.quick)


if __name__ == "__main__":
    main()
