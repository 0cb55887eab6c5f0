"""`regard demo`."""

import datetime
import itertools
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from regard.cli.command import FOLDER, Command, Option
from regard.cli.shared import THREADS, device_flag
from regard.tasks.dates import FIRST, LANGUAGES, LAST, DatePair, dates, name, part_of, written
from regard.train.options import TrainOptions

if TYPE_CHECKING:
    from regard.lens.alignment import Alignment
    from regard.tasks.translate import Translator

SENTENCES = (
    "This package contains the documentation.",
    "A small and fast text editor for the terminal.",
    "The library reads and writes compressed files.",
    "Tools to find and repair errors in a file system.",
)
TRAINED, HELD_OUT, TESTED = 30_000, 600, 1500  # pairs to train on, to choose the best step by, and to test
SHOWN = datetime.date(2022, 5, 3)  # the first test date from here on is shown
SHOWN_LANGUAGES = ("it", "en", "de", "fi", "ru", "hi", "zh")  # the first in the terminal, all on the page
EXPECTED = 0.9  # share of unseen dates that should be right
WORST = 3  # languages with the most mistakes that are named
# Small enough to train in a minute on two slow cores, with one layer of cross-attention to look at.
MODEL = {"embed_dim": 64, "num_heads": 4, "ffn_dim": 256, "encoder_layers": 2, "decoder_layers": 1, "norm": "pre"}


def run(out: str, threads: int, device: str) -> None:
    """Translate with the model that regard ships, train a small one from random weights, and look inside both."""
    import torch

    start = time.perf_counter()
    torch.set_num_threads(threads)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    show_translations(folder, device)
    train_dates(folder, threads=threads, device=device)
    click.echo(f"\nThe demo took {time.perf_counter() - start:.0f} s.")


def show_translations(folder: Path, device: str) -> None:
    """Part 1: translations of the shipped model, and its attention."""
    from regard.checkpoints.shipped import SHIPPED
    from regard.tasks.load import load

    _head("1. The model that regard ships: English to Italian, for descriptions of software")
    if not SHIPPED.is_dir():
        click.echo(f"This copy of regard ships no model ({SHIPPED} is missing); continuing with part 2.")
        return
    translator = load(device=device)
    for translation in translator.translate(SENTENCES):
        click.echo(f"{translation.source}\n  -> {translation.text}")
    alignments = [translator.see(sentence) for sentence in SENTENCES]
    _show(alignments, folder / "attention.html", title="Attention of English to Italian")


def train_dates(folder: Path, *, threads: int, device: str = "cpu", seed: int = 1) -> float:
    """Part 2: a model that learns to normalize dates, its accuracy and its attention.

    Args:
        folder: folder for the pairs, the run and the page.
        threads: number of threads.
        device: device to train and run on.
        seed: random seed of the pairs and the run.

    Returns:
        The share of unseen dates that it reads correctly.
    """
    from regard.tasks.load import load
    from regard.train.run import train

    _head(f"2. A small model, trained from random weights: dates in {len(LANGUAGES)} languages")
    days = (LAST - FIRST).days + 1
    click.echo(
        f"{TRAINED:,} generated pairs. Of the {days:,} days from {FIRST.year} to {LAST.year}, 80% are for training;\n"
        "the model sees none of the others, in any language, before it is tested on some of them."
    )
    files = {part: folder / f"dates-{part}.tsv" for part in ("train", "valid")}
    _write(files["train"], dates("train", TRAINED, seed=seed))
    _write(files["valid"], dates("valid", HELD_OUT, seed=seed))
    machine = {"threads": threads, "device": device, "seed": seed}
    model = train(options(files["train"], files["valid"], folder / "dates", **machine))
    translator = load(model, device=device)
    right = score(translator, list(dates("test", TESTED, seed=seed)))
    day = next(day for day in map(SHOWN.__add__, map(datetime.timedelta, range(days))) if part_of(day) == "test")
    alignments = [see(translator, written(day, language)) for language in SHOWN_LANGUAGES]
    _show(alignments, folder / "dates.html", title="How a model reads dates")
    click.echo(f'Try it: regard translate "{written(day, "en")}" --model {model}')
    return right


def options(train: Path, valid: Path, out: Path, *, threads: int, device: str, seed: int) -> TrainOptions:
    """Options of a run that learns dates in about a minute."""
    return TrainOptions(
        files=(str(train),),
        valid=str(valid),
        out=str(out),
        vocab_size=1500,
        model_settings=MODEL,
        dropout=0.0,
        label_smoothing=0.0,
        steps=900,
        batch_tokens=1024,
        learning_rate=5e-3,
        evaluate_every=150,
        seed=seed,
        threads=threads,
        device=device,
    )


def score(translator: "Translator", pairs: list[DatePair]) -> float:
    """Accuracy on unseen dates, which is also printed, with that of the worst languages."""
    from regard.decode.search import Greedy

    translations = translator.translate([pair.source for pair in pairs], search=Greedy(), batch_size=128)
    right: dict[str, list[bool]] = {pair.language: [] for pair in pairs}
    wrong = []
    for pair, translation in zip(pairs, translations, strict=True):
        right[pair.language].append(translation.text == pair.target)
        if translation.text != pair.target:
            wrong.append(f"{pair.source} -> {translation.text} instead of {pair.target}")
    share = 1 - len(wrong) / len(pairs)
    worst = sorted(right, key=lambda language: sum(right[language]) / len(right[language]))[:WORST]
    named = ", ".join(f"{name(each)} {sum(right[each]) / len(right[each]):.0%}" for each in worst)
    click.echo(
        f"\nUnseen dates: {len(pairs) - len(wrong):,} of {len(pairs):,} are right to the last digit, {share:.1%}."
    )
    click.echo(f"The worst languages, of {len(pairs) // len(right)} dates each: {named}.")
    if wrong:
        click.echo(f"A mistake: {wrong[0]}.")
    if share < EXPECTED:
        click.echo(f"That is less than the expected {EXPECTED:.0%}.")
    return share


def see(translator: "Translator", text: str) -> "Alignment":
    """Alignment of the year, month and day of a date with the words of its source."""
    from regard.decode.search import Greedy
    from regard.lens.see import look

    [tokens] = translator.translate([text], search=Greedy())[0].candidates[0].tokens
    pieces = translator.tokenizer.pieces(tokens)  # a digit or a hyphen each
    runs = (list(run) for _, run in itertools.groupby(range(len(pieces)), key=lambda i: pieces[i].isdigit()))
    parts = [("".join(pieces[i] for i in run), range(run[0], run[-1] + 1)) for run in runs]
    return look(translator.module, translator.tokenizer, text, tokens, target_words=parts)


def _show(alignments: "list[Alignment]", path: Path, *, title: str) -> None:
    """Show the first alignment in the terminal, and write all of them to a page."""
    from regard.lens import page, terminal

    click.echo(f"\n{terminal.draw(alignments[0].map('cross'))}\n")
    path.write_text(page.page(alignments, title=title), encoding="utf-8")
    click.echo(f"wrote {path}: all heads and layers, for {len(alignments)} sentences; open it in a browser")


def _write(path: Path, pairs: Iterable[DatePair]) -> None:
    path.write_text("".join(f"{pair.source}\t{pair.target}\n" for pair in pairs), encoding="utf-8")


def _head(text: str) -> None:
    click.echo(f"\n{text}\n{'-' * len(text)}")


command = Command(
    "demo",
    run,
    params=[
        Option(
            ["--out"],
            type=FOLDER,
            metavar="FOLDER",
            default="regard-demo",
            show_default=True,
            help="Folder for the files of the demo.",
        ),
        Option(
            ["--threads"],
            type=THREADS,
            default=1,
            show_default=True,
            help="Number of threads; so small a model needs only one.",
        ),
        device_flag(),
    ],
    examples=["regard demo", "regard demo --out /tmp/demo"],
)
