"""Does a sentence get the same tokens alone, in a batch of 64, and padded to the length of a much longer one?"""

import tempfile
import time
from pathlib import Path

import torch
from common import write
from translation import corpus, options, prepared, read, texts

from regard.decode.generate import generate
from regard.decode.search import Beam, Greedy, Search
from regard.models.seq2seq import Seq2Seq
from regard.models.transformer import Transformer, TransformerConfig
from regard.tasks.encoder_decoder import vocabulary_of
from regard.tasks.load import load

BATCH = 64
LONG = 200  # tokens of the source that the others are padded to
SEARCHES: dict[str, Search] = {"greedy": Greedy(), "beam 4": Beam(4)}

Tokens = list[list[int]]


def tokens(model: Seq2Seq, sources: Tokens, search: Search, batch_size: int, limit: int) -> Tokens:
    """The best target of each source."""
    found = generate(model, sources, search=search, batch_size=batch_size, max_length=limit)
    return [hypotheses[0].tokens for hypotheses in found]


def padded(model: Seq2Seq, sources: Tokens, search: Search, limit: int, *, long: int) -> Tokens:
    """The same, with a longer source in every batch."""
    longer = [5 + i % 100 for i in range(long)]
    found: Tokens = []
    for start in range(0, len(sources), BATCH - 1):
        some = sources[start : start + BATCH - 1]
        found += tokens(model, [*some, longer], search, BATCH, limit)[: len(some)]
    return found


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--run", help="folder of a trained model; by default one with random weights")
    parser.add_argument("--sentences", type=int, default=500)
    given = read(parser)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = corpus(given, folder)
        if given.run:
            translator = load(given.run)
            tokenizer, model, limit = translator.tokenizer, translator.module, 200
        else:
            tokenizer, limit = prepared(files, folder, vocab_size=500 if given.quick else 8000).tokenizer, 32
            torch.manual_seed(0)
            size = "tiny" if given.quick else "small"
            model = Transformer(TransformerConfig.from_preset(size, vocabulary_of(tokenizer)))
        count, limit = (20, 8) if given.quick else (given.sentences, limit)
        rows = texts(files.test, count)
    sources = [ids[:LONG] for ids in tokenizer.encode_batch([source for source, _ in rows])]
    cases = []
    for title, search in SEARCHES.items():
        start = time.perf_counter()
        batched = tokens(model, sources, search, BATCH, limit)
        seconds = time.perf_counter() - start
        others = {
            "alone": tokens(model, sources, search, 1, limit),
            "padded": padded(model, sources, search, limit, long=20 if given.quick else LONG),
        }
        for other, found in others.items():
            cases.append(
                {
                    "case": f"targets that differ, {other} or in a batch of {BATCH}, {title}",
                    "unit": f"of {len(sources)}",
                    "value": sum(x != y for x, y in zip(found, batched, strict=True)),
                    "bar": 0,
                    "data": files.name,
                    "model": "trained" if given.run else "random weights",
                    "tokens_written": sum(map(len, batched)),
                    "sentences_a_second_in_batches": round(len(sources) / seconds, 2),
                }
            )
    write("invariance", cases, quick=given.quick)


if __name__ == "__main__":
    main()
