"""What do GPT-3's alternating banded layers cost and give, beside dense ones, in one small GPT on real text?

Both learn the same tokens in the same order from the same first weights; then a training step and a cache of each are
measured at several lengths. The text is the English side of the pairs, descriptions of software, one after another.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import alternate, ratio, worst, write
from torch import Tensor
from torch.nn import functional
from translation import corpus, options, read, texts

from regard.data.tokenizer import Tokenizer
from regard.decode.search import Greedy
from regard.models.gpt import GPT, GPTConfig
from regard.models.language_model import LanguageModel
from regard.tasks.completion import complete
from regard.tasks.encoder_decoder import vocabulary_of

BAND = 64  # keys
LENGTHS = {512: 7, 2048: 5, 8192: 3}  # tokens, and how often a step of each is timed
SIZES = {
    "embed_dim": 128,
    "num_heads": 4,
    "num_layers": 4,
    "max_length": 8192,
    "dropout": 0.0,
    "embedding_dropout": 0.0,
}
PIECES, WINDOW, BATCH = 2000, 512, 8  # of the vocabulary; tokens of a training text, texts of a step
RATE, WARM_UP = 2e-3, 20  # of AdamW, in steps
PROMPT = "This package contains"


def stream(file: str, tokenizer: Tokenizer) -> Tensor:
    """The texts of a file, each between its marks, as one row of ids."""
    encoded = tokenizer.encode_batch([source for source, _ in texts(file)])
    return torch.tensor([*itertools.chain.from_iterable((tokenizer.bos, *ids, tokenizer.eos) for ids in encoded)])


def model(band: int | None, tokenizer: Tokenizer) -> GPT:
    """The same first weights whatever the band."""
    torch.manual_seed(0)
    sizes = {**SIZES, "attention_dropout": 0.0}
    return GPT(GPTConfig(vocabulary=vocabulary_of(tokenizer), band=band, **sizes))


def loss(made: LanguageModel, tokens: Tensor) -> Tensor:
    """Mean cross entropy of each token after those before it, nats."""
    return functional.cross_entropy(made(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten())


def batches(ids: Tensor) -> Iterator[Tensor]:
    """Windows of the stream in an order of their own, over and over."""
    windows = ids[: len(ids) // (WINDOW + 1) * (WINDOW + 1)].view(-1, WINDOW + 1)
    for epoch in itertools.count():
        order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(epoch))
        yield from (windows[some.to(ids.device)] for some in order.split(BATCH) if len(some) == BATCH)


def train(made: LanguageModel, ids: Tensor, steps: int) -> float:
    """Train, and the seconds that the processor worked for it."""
    made.train()
    optimizer = torch.optim.AdamW(made.parameters(), RATE, betas=(0.9, 0.95), weight_decay=0.1)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARM_UP, max(0.05, 1 - step / steps))
    )
    start = time.process_time()
    for batch in itertools.islice(batches(ids), steps):
        optimizer.zero_grad()
        loss(made, batch).backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        rate.step()
    made.eval()
    return time.process_time() - start


@torch.no_grad()
def held_out(made: LanguageModel, ids: Tensor) -> float:
    """The loss on windows of other texts."""
    windows = ids[: len(ids) // (WINDOW + 1) * (WINDOW + 1)].view(-1, WINDOW + 1)
    return statistics.fmean(float(loss(made, some)) for some in windows.split(BATCH))


@torch.no_grad()
def check(made: GPT) -> float:
    """That the dense reference gives the same logits, and steps with a cache too; the largest difference."""
    tokens = torch.randint(0, made.vocabulary.size, (2, 3 * BAND))
    whole = made(tokens).logits
    state = made.start(tokens[:, : 2 * BAND])
    steps = [made.step(token, state) for token in tokens[:, 2 * BAND :].split(1, 1)]
    for layer in made.layers:
        layer.self_attention.backend = "reference"
    error = worst(made(tokens).logits, whole)
    for layer in made.layers:
        layer.self_attention.backend = "auto"
    error = max(error, worst(torch.cat(steps, 1), whole[:, 2 * BAND :]))
    if error > 1e-4:
        raise SystemExit(f"the logits differ by {error}: nothing to time")
    return error


def step_times(models: dict[str, GPT], length: int, repeats: int) -> dict[str, dict[str, float]]:
    """Forward and backward of one text, in turn: the processor's time, which on one thread other work disturbs less."""
    tokens = torch.randint(0, models["dense"].vocabulary.size, (1, length + 1))

    def step(made: GPT) -> None:
        made.zero_grad()
        loss(made, tokens).backward()

    return alternate({name: lambda made=made: step(made) for name, made in models.items()}, repeats, time.process_time)


@torch.inference_mode()
def cache_bytes(made: GPT, length: int) -> int:
    """Of all layers after a prompt and one more token."""
    prompt = torch.randint(0, made.vocabulary.size, (1, length - 1))
    state = made.start(prompt)
    made.step(prompt[:, :1], state)
    return sum(past.bytes for past in state.past)


def losses(models: dict[str, GPT], folder: Path, given: argparse.Namespace, tokenizer: Tokenizer) -> dict[str, Any]:
    """Both trained on equal tokens."""
    files = corpus(given, folder)
    ids, others = (stream(file, tokenizer).to(given.device) for file in (files.train, files.valid))
    found: dict[str, float] = {}
    seconds: dict[str, float] = {}
    samples: dict[str, str] = {}
    for name, made in models.items():
        made.to(given.device)
        seconds[name] = round(train(made, ids, given.steps), 1)
        found[name] = round(held_out(made, others), 4)
        [sample] = complete(made, tokenizer, [PROMPT], search=Greedy(), max_new_tokens=32)
        samples[name] = str(sample)
        made.cpu()
    return {
        "case": f"held-out loss after {given.steps * BATCH * WINDOW:,} tokens of text: banded - dense",
        "unit": "nats a token",
        "value": round(found["banded"] - found["dense"], 4),
        "bar": None,
        "losses": found,
        "training_processor_seconds": seconds,
        "text": files.name,
        "held_out_tokens": len(others),
        "samples": samples,
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--steps", type=int, default=150, help="of training, each model")
    parser.add_argument("--losses", type=Path, help="file that keeps the losses: made if missing, else read")
    given = read(parser)
    if given.quick:
        given.steps = 3
    with TemporaryDirectory() as name:
        folder = Path(name)
        rows = texts(corpus(given, folder).train, 20_000)
        tokenizer = Tokenizer.train((source for source, _ in rows), vocab_size=PIECES)
        models = {"dense": model(None, tokenizer), "banded": model(BAND, tokenizer)}
        if given.losses is not None and given.losses.exists():
            cases = [json.loads(given.losses.read_text())]
        else:
            cases = [losses(models, folder, given, tokenizer)]
        if given.losses is not None and not given.losses.exists():
            given.losses.write_text(json.dumps(cases[0]))
            return  # what is timed wants a machine for itself
    error = max(check(made) for made in models.values())
    for length, repeats in LENGTHS.items():
        if given.quick and length > WINDOW:
            continue
        timed = step_times(models, length, 2 if given.quick else repeats)
        kept = {name: cache_bytes(made, length) for name, made in models.items()}
        shape = {"layers": SIZES["num_layers"], "embed_dim": SIZES["embed_dim"], "band": BAND, "tokens": length}
        cases += [
            {
                "case": f"training step of {length:,} tokens, every other layer banded to {BAND} keys / all dense",
                "unit": "x its processor time",
                "value": ratio(timed, "banded", "dense"),
                "bar": None,
                **shape,
                "dtype": "float32",
                "times": timed,
                "error": error,
            },
            {
                "case": f"cache after {length:,} tokens, every other layer banded to {BAND} keys / all dense",
                "unit": "x its bytes",
                "value": round(kept["banded"] / kept["dense"], 3),
                "bar": None,
                **shape,
                "bytes": kept,
            },
        ]
    write("banded", cases, quick=given.quick)


if __name__ == "__main__":
    main()
