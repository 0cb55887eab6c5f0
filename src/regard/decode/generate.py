"""Targets for any number of sources: in batches of like length, in the order of the sources."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby

import torch
from torch import Tensor

from regard.attention.check import check_integer, show
from regard.decode.beam import beam
from regard.decode.check import check_sources, check_tokens, limit, room
from regard.decode.constraints import Constraints, Rules
from regard.decode.sampling import Draw, keys
from regard.decode.search import Beam, Greedy, Hypothesis, Sample, Search
from regard.decode.stepwise import OVER, Watch, follow, most_probable
from regard.errors import ConfigError
from regard.layers.evaluation import in_evaluation
from regard.models.language_model import LanguageModel
from regard.models.seq2seq import Seq2Seq


def twice_as_long(source: int) -> int:
    """The greatest length of a target by default: twice that of the source, and 16 tokens more."""
    return 2 * source + 16


def generate(
    model: Seq2Seq | LanguageModel,
    sources: Sequence[Sequence[int]],
    *,
    search: Search = Beam(),
    constraints: Constraints = Constraints(),
    max_length: int | Callable[[int], int] | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
    on_token: Callable[[int, int | None], bool] | None = None,
) -> list[list[Hypothesis]]:
    """Targets of each source, by a model that can step; of a language model, what comes after each prompt.

    Sources of like length are decoded together, prompts only if they are of one length; those that are done leave their
    batch. A source gets the same tokens in any batch. The model runs in evaluation mode here, and keeps its own for
    whoever else runs it meanwhile.

    Args:
        model: any `Seq2Seq` or `LanguageModel`.
        sources: token ids of each source, without `eos`; or of each prompt, as it is, or `bos` where it is empty.
        search: `Greedy()`, `Sample()` or `Beam()`.
        constraints: rules for the tokens, whichever the search.
        max_length: tokens that a target may have at most, `eos` among them; or that as a function of the number of
            tokens of its source; None for twice as many and 16 more.
        batch_size: sources that are decoded together, >= 1.
        progress: called after each batch with the number of sources done and of all.
        on_token: called with the number of a source and each of its tokens as it is chosen, None where it ended by
            itself; True in return ends it here. Not with a beam search, which knows no token until the end.

    Returns:
        Hypotheses of each source in the order of the sources, best first: one, or `n_best` of a beam search.

    Raises:
        ConfigError: another search, a length or a batch size below 1; on_token with a beam search; constraints that
            name tokens beyond the vocabulary.
        DataError: sources with tokens that are not in the vocabulary, or a prompt that is longer than the model's
            positions.
        CheckpointError: the model gives NaN.

    >>> from regard.models.seq2seq import Vocabulary
    >>> from regard.models.transformer import Transformer, TransformerConfig
    >>> model = Transformer(TransformerConfig.of_size("tiny", Vocabulary(size=100)))
    >>> found = generate(model, [[5, 6, 7], [8]], search=Beam(4, n_best=2), max_length=3)
    >>> [[len(one.tokens) <= 3 for one in hypotheses] for hypotheses in found]
    [[True, True], [True, True]]
    """
    if not isinstance(search, Greedy | Sample | Beam):
        raise ConfigError(f"search={show(search)} is not a search; known: Greedy(), Sample(), Beam()")
    if on_token is not None and isinstance(search, Beam):
        raise ConfigError(f"on_token with search={search}: tokens are known as they come by Greedy() and Sample() only")
    check_integer("generate", "batch_size", batch_size, 1, " sources")
    check_sources(sources, model.vocabulary, prompts=model.continues_input, copies=model.copies)
    check_tokens(constraints, model.vocabulary)
    length = twice_as_long if max_length is None else max_length
    limits = [min(limit(length, source), room(model, source, number)) for number, source in enumerate(sources)]
    done = 0
    found: list[list[Hypothesis]] = [[] for _ in sources]
    model = in_evaluation(model)
    with torch.inference_mode():
        run = runner(model, sources, search, constraints, on_token)
        for numbers in batches([len(source) for source in sources], batch_size, equal=model.continues_input):
            batch = run(numbers, [limits[number] for number in numbers])
            for number, hypotheses in zip(numbers, batch, strict=True):
                found[number] = hypotheses
            done += len(numbers)
            if progress is not None:
                progress(done, len(sources))
    return found


def batches(lengths: Sequence[int], size: int, *, equal: bool) -> Iterator[list[int]]:
    """The numbers of sources that are decoded together, longest first: at most `size`, of equal length if asked."""
    order = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    groups = [list(group) for _, group in groupby(order, key=lengths.__getitem__)] if equal else [order]
    for group in groups:
        yield from (group[i : i + size] for i in range(0, len(group), size))


def runner(
    model: Seq2Seq | LanguageModel,
    sources: Sequence[Sequence[int]],
    search: Search,
    constraints: Constraints,
    on_token: Callable[[int, int | None], bool] | None,
) -> Callable[[list[int], list[int]], list[list[Hypothesis]]]:
    """What decodes the sources of these numbers, up to these lengths."""
    device = next(chain(model.parameters(), model.buffers()), torch.empty(0)).device
    if isinstance(search, Sample):
        drawn = torch.randint(2**63 - 1, ()) if search.seed is None else torch.tensor(search.seed)
        seed, words = drawn.to(device), keys(sources).to(device)

    def run(numbers: list[int], limits: list[int]) -> list[list[Hypothesis]]:
        inputs, lengths = model.collate([sources[number] for number in numbers])
        inputs = inputs.to(device)
        state, tokens = model.prefill(inputs, None if lengths is None else lengths.to(device))
        most = torch.tensor(limits, device=device)
        rules = Rules(constraints, model.vocabulary, inputs if model.continues_input else tokens[:, None], most)
        if isinstance(search, Beam):
            return beam(model, state, tokens, most, search, rules)
        choose = Draw(search, seed, words[numbers]) if isinstance(search, Sample) else most_probable
        watch = None if on_token is None else watching(numbers, on_token)
        return follow(model, state, tokens, most, choose, rules, watch)

    return run


def watching(numbers: list[int], on_token: Callable[[int, int | None], bool]) -> Watch:
    """Tells tokens one by one, by the numbers of their sources."""

    def watch(sentences: Tensor, tokens: Tensor) -> Tensor:
        told = zip(sentences.tolist(), tokens.tolist(), strict=True)
        last = [on_token(numbers[sentence], None if token == OVER else token) for sentence, token in told]
        return torch.tensor(last, dtype=torch.bool, device=tokens.device)

    return watch
