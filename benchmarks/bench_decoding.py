"""How fast are translations found, against transformers' `generate` and CTranslate2 with the same weights, in float32?

Transformer base has random weights and never ends a sentence by itself, so that all write the same number of tokens;
the small model is a trained run's (`--run`), or random as well.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from common import alternate, ratio, write
from peer import decode, marian
from profiles import operation_seconds, shares
from torch import nn
from translation import corpus, options, prepared, read, texts

from regard.decode.generate import generate
from regard.decode.search import Beam, Greedy, Search
from regard.models.seq2seq import Vocabulary
from regard.models.transformer import Transformer, TransformerConfig
from regard.tasks.encoder_decoder import vocabulary_of
from regard.tasks.load import load

SEARCHES: dict[str, Search] = {"greedy": Greedy(), "beam 4": Beam(4)}
BARS = {32: 2.0, 1: 1.3}  # against transformers, by batch
TINY = {"embed_dim": 32, "ffn_dim": 64, "encoder_layers": 1, "decoder_layers": 1}
REST = 0.5  # seconds: threads of CTranslate2's OpenMP spin for 0.2 after its work
NEVER = -1e4  # the bias of a token that shall not be written

Tokens = list[list[int]]


def endless(size: str, told: Vocabulary, *, quick: bool) -> Transformer:
    """A model with random weights that writes neither eos, bos nor padding: every target is as long as it may be."""
    torch.manual_seed(0)
    changes = {**(TINY if quick else {}), "output_bias": True}
    model = Transformer(TransformerConfig.from_preset(size, told, **changes)).eval()
    with torch.no_grad():
        model.output_bias[[told.pad, told.bos, told.eos]] = NEVER
    return model


def ctranslate(peer: nn.Module, folder: Path, threads: int, *, compute_type: str = "float32") -> Callable[..., Tokens]:
    """CTranslate2 with Marian's weights: token i is called "i"."""
    import ctranslate2
    from ctranslate2.converters.transformers import BartLoader

    config = peer.config
    config.normalize_before = config.normalize_embedding = False

    class Loader(BartLoader):  # Marian's own starts from a vector of zeros instead of a token
        def get_vocabulary(self, model: Any, tokenizer: Any) -> list[str]:
            return [str(i) for i in range(config.vocab_size)]

        def set_config(self, made: Any, model: Any, tokenizer: Any) -> None:
            made.bos_token, made.eos_token = str(config.bos_token_id), str(config.eos_token_id)
            made.unk_token = str(config.pad_token_id)
            made.decoder_start_token = str(config.decoder_start_token_id)

    with torch.no_grad():
        spec = Loader()(peer, None)
    spec.validate()
    spec.save(str(folder))
    translator = ctranslate2.Translator(
        str(folder), device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=threads
    )

    def run(sources: Sequence[Sequence[int]], *, beams: int, batch_size: int, max_length: int) -> Tokens:
        named = [[*map(str, source), str(config.eos_token_id)] for source in sources]
        found = translator.translate_batch(
            named, beam_size=beams, max_batch_size=batch_size, max_decoding_length=max_length, length_penalty=1.0
        )
        return [[int(token) for token in result.hypotheses[0]] for result in found]

    return run


def same(found: Tokens, expected: Tokens) -> float:
    """The share of targets that are equal."""
    return sum(x == y for x, y in zip(found, expected, strict=True)) / len(expected)


def measure(
    name: str, model: Transformer, sources: Tokens, given: Any, folder: Path, *, limit: int, repeats: int
) -> Iterator[dict[str, Any]]:
    """The cases of a model."""
    peer = marian(model).eval()
    (converted := folder / name.split(",")[0]).mkdir()
    fast = ctranslate(peer, converted, given.threads)
    for batch in (32, 1):
        some = sources if batch > 1 else sources[:: max(1, len(sources) // (2 if given.quick else 16))]
        for title, search in SEARCHES.items():
            how = {"beams": 1 if isinstance(search, Greedy) else search.size, "batch_size": batch, "max_length": limit}
            found: dict[str, Tokens] = {}

            def ours(some=some, search=search, batch=batch, found=found) -> None:
                results = generate(model, some, search=search, batch_size=batch, max_length=limit)
                found["regard"] = [result[0].tokens for result in results]

            def theirs(some=some, how=how, found=found) -> None:
                found["transformers"] = decode(peer, some, **how)

            def third(some=some, how=how, found=found) -> None:
                found["CTranslate2"] = fast(some, **how)

            runs = {"regard": ours, "transformers": theirs, "CTranslate2": third}
            timed = alternate(runs, 2 if given.quick else repeats, rest=REST)
            equal = {other: same(found[other], found["regard"]) for other in ("transformers", "CTranslate2")}
            if title == "greedy" and equal["transformers"] < 1:
                raise SystemExit(
                    f"{name}: {equal['transformers']:.3%} of greedy targets are transformers': nothing to time"
                )
            shared = {
                "dtype": "float32",
                "sentences": len(some),
                "tokens_written": sum(map(len, found["regard"])),
                "sentences_a_second": {n: round(1e3 * len(some) / t["median_ms"], 3) for n, t in timed.items()},
                "share_of_equal_targets": equal,
                "times": timed,
                "where_the_time_goes": where(ours),
            }
            what = f"{name}, {title}, batch {batch}"
            value = ratio(timed, "transformers", "regard")
            case = {"case": f"decoding, {what}, against transformers", "value": value, "bar": BARS[batch]}
            yield {**case, "unit": "x its rate", "at_least": True, **shared}
            if batch > 1:
                bar = 1.0 if name.startswith("base") else None
                value = ratio(timed, "CTranslate2", "regard")
                case = f"decoding, {what}, against CTranslate2"
                yield {"case": case, "unit": "x its rate", "value": value, "bar": bar, "at_least": True}


def where(run: Callable[[], None]) -> dict[str, float]:
    """Shares of the time, that of the rest among them."""
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    return shares(operation_seconds(run), seconds)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--run", help="folder of a trained small model")
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--length", type=int, default=32, help="tokens that a model with random weights writes")
    parser.add_argument("--repeats", type=int, default=3)
    given = read(parser)
    count = 6 if given.quick else given.sentences
    limit = 6 if given.quick else given.length
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = corpus(given, folder)
        sentences = [source for source, _ in texts(files.test, count)]
        if given.run:
            translator = load(given.run)
            tokenizer, small = translator.tokenizer, translator.module
        else:
            tokenizer = prepared(files, folder, vocab_size=500 if given.quick else 8000).tokenizer
            small = endless("small", vocabulary_of(tokenizer), quick=given.quick)
        sources = tokenizer.encode_batch(sentences)
        base = endless("base", vocabulary_of(tokenizer), quick=given.quick)
        title, longest = ("small, trained", 200) if given.run else ("small, random weights", limit)
        models = ((title, small, longest), ("base, random weights", base, limit))
        cases = (
            {**case, "data": files.name}
            for name, model, most in models
            for case in measure(name, model, sources, given, folder, limit=most, repeats=given.repeats)
        )
        write("decoding", cases, quick=given.quick)


if __name__ == "__main__":
    main()
