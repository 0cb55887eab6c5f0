"""Targets for any number of sources: in batches of like length, in the order of the sources."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from sys import maxsize

import torch
from torch import Tensor

from regard.attention.check import check_integer, show
from regard.decode.beam import beam
from regard.decode.check import check_sources, limit
from regard.decode.sampling import Draw, keys
from regard.decode.search import Beam, Greedy, Hypothesis, Sample, Search
from regard.decode.single import follow, most_probable
from regard.errors import ConfigError
from regard.models.seq2seq import Seq2Seq, Vocabulary


def twice_as_long(source: int) -> int:
    """The greatest length of a target by default: twice that of the source, and 16 tokens more."""
    return 2 * source + 16


def generate(
    model: Seq2Seq,
    sources: Sequence[Sequence[int]],
    *,
    search: Search = Beam(),
    max_length: int | Callable[[int], int] | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Hypothesis]]:
    """Targets of each source, by a model that can step.

    Sources of like length are decoded together, and those that are done leave their batch. A source gets the same
    tokens in any batch. The model runs in evaluation mode, and has its mode back afterwards.

    Args:
        model: any `Seq2Seq`.
        sources: token ids of each source, without `eos`.
        search: `Greedy()`, `Sample()` or `Beam()`.
        max_length: tokens that a target may have at most, `eos` among them; or that as a function of the number of
            tokens of its source; None for twice as many and 16 more.
        batch_size: sources that are decoded together, >= 1.
        progress: called after each batch with the number of sources done and of all.

    Returns:
        Hypotheses of each source in the order of the sources, best first: one, or `n_best` of a beam search.

    Raises:
        ConfigError: another search, a length or a batch size below 1.
        DataError: sources with tokens that are not in the vocabulary.
        CheckpointError: the model gives NaN.

    >>> from regard.models.transformer import Transformer, TransformerConfig
    >>> model = Transformer(TransformerConfig.of_size("tiny", Vocabulary(size=100)))
    >>> found = generate(model, [[5, 6, 7], [8]], search=Beam(4, n_best=2), max_length=3)
    >>> [[len(one.tokens) <= 3 for one in hypotheses] for hypotheses in found]
    [[True, True], [True, True]]
    """
    if not isinstance(search, Greedy | Sample | Beam):
        raise ConfigError(f"search={show(search)} is not a search; known: Greedy(), Sample(), Beam()")
    check_integer("generate", "batch_size", batch_size, 1, " sources")
    check_sources(sources, model.vocabulary)
    length = twice_as_long if max_length is None else max_length
    limits = [min(limit(length, source), model.longest or maxsize) for source in sources]
    order = sorted(range(len(sources)), key=lambda number: (-len(sources[number]), number))
    found: list[list[Hypothesis]] = [[] for _ in sources]
    with torch.inference_mode(), evaluation(model):
        run = runner(model, sources, search)
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            batch = run(numbers, [limits[number] for number in numbers])
            for number, hypotheses in zip(numbers, batch, strict=True):
                found[number] = hypotheses
            if progress is not None:
                progress(start + len(numbers), len(sources))
    return found


def runner(
    model: Seq2Seq, sources: Sequence[Sequence[int]], search: Search
) -> Callable[[list[int], list[int]], list[list[Hypothesis]]]:
    """What decodes the sources of these numbers, up to these lengths."""
    device = next(chain(model.parameters(), model.buffers()), torch.empty(0)).device
    if isinstance(search, Sample):
        drawn = torch.randint(2**63 - 1, ()) if search.seed is None else torch.tensor(search.seed)
        seed, words = drawn.to(device), keys(sources).to(device)

    def run(numbers: list[int], limits: list[int]) -> list[list[Hypothesis]]:
        memory = model.encode(padded([sources[number] for number in numbers], model.vocabulary).to(device))
        most = torch.tensor(limits, device=device)
        if isinstance(search, Beam):
            return beam(model, memory, most, search)
        choose = Draw(search, seed, words[numbers]) if isinstance(search, Sample) else most_probable
        return follow(model, memory, most, choose)

    return run


def padded(sources: Sequence[Sequence[int]], vocabulary: Vocabulary) -> Tensor:
    """The sources with `eos`, as one tensor (B, S)."""
    length = max(map(len, sources)) + 1
    rows = [[*source, vocabulary.eos] + [vocabulary.pad] * (length - len(source) - 1) for source in sources]
    return torch.tensor(rows)


@contextmanager
def evaluation(model: Seq2Seq) -> Iterator[None]:
    """The model in evaluation mode; each of its parts gets its own mode back."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
