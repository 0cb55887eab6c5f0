"""What is asked of sources and of a model before and while targets are looked for."""

from collections.abc import Callable, Sequence
from sys import maxsize

from torch import Tensor

from regard.attention.check import is_integer, show
from regard.decode.constraints import Constraints
from regard.errors import CheckpointError, ConfigError, DataError
from regard.models.language_model import LanguageModel
from regard.models.seq2seq import Seq2Seq, Vocabulary


def check_sources(
    sources: Sequence[Sequence[int]], vocabulary: Vocabulary, *, prompts: bool = False, copies: bool = False
) -> None:
    """Raise DataError unless these are ids of the vocabulary, without `pad` if they are no prompts.

    A model that copies takes ids beyond its vocabulary too.
    """
    without = "" if prompts else f" without pad={vocabulary.pad}, which `generate` adds itself"
    for number, source in enumerate(sources):
        if not isinstance(source, Sequence):
            raise DataError(
                f"sources[{number}]={show(source)} must be a list of token ids; for one source give [source]"
            )
        for token in source:
            known = is_integer(token) and token >= 0 and (copies or token < vocabulary.size)
            if not known or (token == vocabulary.pad and not prompts):
                raise DataError(
                    f"sources[{number}] has the token {show(token)}; expected ids from 0 to {vocabulary.size - 1}"
                    f"{without}"
                )


def check_tokens(constraints: Constraints, vocabulary: Vocabulary) -> None:
    """Raise ConfigError unless the tokens that the constraints name are of the vocabulary."""
    if constraints.highest >= vocabulary.size:
        raise ConfigError(
            f"constraints name the token {constraints.highest}; expected ids from 0 to {vocabulary.size - 1}"
        )


def limit(max_length: int | Callable[[int], int], source: Sequence[int]) -> int:
    """The greatest length of a target of this source."""
    length = max_length(len(source)) if callable(max_length) else max_length
    if not is_integer(length) or length < 1:
        raise ConfigError(
            f"max_length={show(length)} for a source of {len(source)} tokens must be an integer >= 1: tokens of a "
            "target with its eos"
        )
    return int(length)


def check_scores(scores: Tensor, step: int) -> None:
    """Raise CheckpointError where a score is NaN, from which no search can go on."""
    if bool(scores.isnan().any()):
        raise CheckpointError(
            f"the model's log-probabilities are nan at target token {step}: its weights are damaged or have diverged; "
            "use an earlier checkpoint"
        )


def room(model: Seq2Seq | LanguageModel, source: Sequence[int], number: int) -> int:
    """The tokens that can be written after a source: without bound, or as the model's positions allow."""
    longest = model.longest
    if longest is None or not model.continues_input:
        return longest or maxsize
    if len(source) > longest:
        raise DataError(
            f"sources[{number}] has {len(source)} tokens, and the model has {longest} positions; shorten it"
        )
    return longest - len(source) + 1  # the last token that is written needs no position
