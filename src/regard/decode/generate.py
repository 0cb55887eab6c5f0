"""`generate`: decode any number of sources in batches of similar length."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby

import torch
from torch import Tensor

from regard.attention.check import check_integer, show
from regard.decode.beam import beam_search
from regard.decode.check import check_constraints, check_sources, position_limit, target_limit
from regard.decode.constraints import Constraints, ConstraintState
from regard.decode.sampling import Sampler, source_keys
from regard.decode.search import Beam, Greedy, Hypothesis, Sample, Search
from regard.decode.stepwise import ENDED, ShouldStop, choose_greedy, decode_stepwise
from regard.errors import ConfigError
from regard.layers.evaluation import in_evaluation
from regard.models.language_model import LanguageModel
from regard.models.seq2seq import Seq2Seq


def twice_as_long(source: int) -> int:
    """The default maximum length of a target: twice the length of its source, plus 16 tokens."""
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
    """Generate a target for each source, or with a language model a continuation of each prompt.

    Sources of similar length are decoded in one batch, prompts only with others of equal length; a finished sequence
    leaves its batch. A source gets the same tokens in any batch. The model is run in evaluation mode, without changing
    its own mode.

    Args:
        model: any `Seq2Seq` or `LanguageModel`.
        sources: token ids of each source, without `eos`; or of each prompt as it is, an empty one standing for `bos`.
        search: `Greedy()`, `Sample()` or `Beam()`.
        constraints: constraints on the tokens, for any search.
        max_length: maximum length of a target, `eos` included; or a function from the length of the source to it; None
            for twice the source's length plus 16.
        batch_size: sources in a batch, >= 1.
        progress: called after each batch with the number of sources done, and of all sources.
        on_token: called with the index of a source and each of its tokens as it is chosen, or None when the sequence
            ended with `eos`; if it returns True, the sequence ends here. Not with beam search, which knows no token
            before its end.

    Returns:
        Hypotheses of each source in the order of the sources, best first: one, or up to `n_best` for beam search.

    Raises:
        ConfigError: an unknown search, a length or batch size below 1, on_token with beam search, or constraints with
            token ids beyond the vocabulary.
        DataError: sources with token ids beyond the vocabulary, or a prompt with more tokens than the model has
            positions.
        CheckpointError: the model's logits are NaN.

    >>> from regard.models.seq2seq import Vocabulary
    >>> from regard.models.transformer import Transformer, TransformerConfig
    >>> model = Transformer(TransformerConfig.from_preset("tiny", Vocabulary(size=100)))
    >>> targets = generate(model, [[5, 6, 7], [8]], search=Beam(4, n_best=2), max_length=3)
    >>> [[len(one.tokens) <= 3 for one in hypotheses] for hypotheses in targets]
    [[True, True], [True, True]]
    """
    if not isinstance(search, Greedy | Sample | Beam):
        raise ConfigError(f"search={show(search)} is not a search; known: Greedy(), Sample(), Beam()")
    if on_token is not None and isinstance(search, Beam):
        raise ConfigError(
            f"on_token with search={search}: beam search knows no token before its end; use Greedy() or Sample()"
        )
    check_integer("generate", "batch_size", batch_size, 1, " sources")
    check_sources(sources, model.vocabulary, prompts=model.continues_input, copies=model.copies)
    check_constraints(constraints, model.vocabulary)
    length = twice_as_long if max_length is None else max_length
    limits = [
        min(target_limit(length, source), position_limit(model, source, number))
        for number, source in enumerate(sources)
    ]
    done = 0
    targets: list[list[Hypothesis]] = [[] for _ in sources]
    model = in_evaluation(model)
    with torch.inference_mode():
        decode = batch_decoder(model, sources, search, constraints, on_token)
        for numbers in batches([len(source) for source in sources], batch_size, equal=model.continues_input):
            batch = decode(numbers, [limits[number] for number in numbers])
            for number, hypotheses in zip(numbers, batch, strict=True):
                targets[number] = hypotheses
            done += len(numbers)
            if progress is not None:
                progress(done, len(sources))
    return targets


def batches(lengths: Sequence[int], size: int, *, equal: bool) -> Iterator[list[int]]:
    """Batches of sources as lists of their indices, longest sources first.

    Args:
        lengths: of the sources.
        size: maximum number of sources in a batch.
        equal: whether the sources of a batch must have equal lengths.

    Yields:
        Indices of the sources of a batch.
    """
    order = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    groups = [list(group) for _, group in groupby(order, key=lengths.__getitem__)] if equal else [order]
    for group in groups:
        yield from (group[i : i + size] for i in range(0, len(group), size))


def batch_decoder(
    model: Seq2Seq | LanguageModel,
    sources: Sequence[Sequence[int]],
    search: Search,
    constraints: Constraints,
    on_token: Callable[[int, int | None], bool] | None,
) -> Callable[[list[int], list[int]], list[list[Hypothesis]]]:
    """A function that decodes a batch, from the indices of its sources and the maximum lengths of their targets."""
    device = next(chain(model.parameters(), model.buffers()), torch.empty(0)).device
    if isinstance(search, Sample):
        seed = torch.randint(2**63 - 1, ()) if search.seed is None else torch.tensor(search.seed)
        seed, keys = seed.to(device), source_keys(sources).to(device)

    def decode(numbers: list[int], limits: list[int]) -> list[list[Hypothesis]]:
        inputs, lengths = model.collate([sources[number] for number in numbers])
        inputs = inputs.to(device)
        state, tokens = model.prefill(inputs, None if lengths is None else lengths.to(device))
        max_lengths = torch.tensor(limits, device=device)
        prompts = inputs if model.continues_input else tokens[:, None]
        constraint_state = ConstraintState(constraints, model.vocabulary, prompts, max_lengths)
        if isinstance(search, Beam):
            return beam_search(model, state, tokens, max_lengths, search, constraint_state)
        choose = Sampler(search, seed, keys[numbers]) if isinstance(search, Sample) else choose_greedy
        should_stop = None if on_token is None else report_tokens(numbers, on_token)
        return decode_stepwise(model, state, tokens, max_lengths, choose, constraint_state, should_stop)

    return decode


def report_tokens(numbers: list[int], on_token: Callable[[int, int | None], bool]) -> ShouldStop:
    """A function that passes each sentence's token to `on_token`, with the index of its source.

    Args:
        numbers: the indices of the sources of a batch.
        on_token: as for `generate`.

    Returns:
        A function of sentences and tokens, as `decode_stepwise` takes it.
    """

    def should_stop(sentences: Tensor, tokens: Tensor) -> Tensor:
        pairs = zip(sentences.tolist(), tokens.tolist(), strict=True)
        stops = [on_token(numbers[sentence], None if token == ENDED else token) for sentence, token in pairs]
        return torch.tensor(stops, dtype=torch.bool, device=tokens.device)

    return should_stop
