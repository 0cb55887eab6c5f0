"""Checks of sources, limits and scores in decoding."""

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
    """Raise DataError unless the sources are lists of valid token ids.

    Args:
        sources: of a call of `generate`.
        vocabulary: of the model.
        prompts: whether they are prompts of a language model, which may hold `pad`.
        copies: whether the model copies from its sources, so that ids beyond the vocabulary are valid.
    """
    without = "" if prompts else f" without pad={vocabulary.pad}, which `generate` adds itself"
    for number, source in enumerate(sources):
        if not isinstance(source, Sequence):
            raise DataError(
                f"sources[{number}]={show(source)} must be a list of token ids; for a single source pass [source]"
            )
        for token in source:
            known = is_integer(token) and token >= 0 and (copies or token < vocabulary.size)
            if not known or (token == vocabulary.pad and not prompts):
                raise DataError(
                    f"sources[{number}] has the token id {show(token)}; expected ids from 0 to {vocabulary.size - 1}"
                    f"{without}"
                )


def check_constraints(constraints: Constraints, vocabulary: Vocabulary) -> None:
    """Raise ConfigError unless all token ids of the constraints are in the vocabulary."""
    if constraints.max_token >= vocabulary.size:
        raise ConfigError(
            f"constraints have the token id {constraints.max_token}; expected ids from 0 to {vocabulary.size - 1}"
        )


def target_limit(max_length: int | Callable[[int], int], source: Sequence[int]) -> int:
    """The maximum length of the target of a source.

    Args:
        max_length: a number of tokens, or a function from the source's length to one.
        source: token ids.

    Returns:
        Tokens, `eos` included.

    Raises:
        ConfigError: a length that is not an integer >= 1.
    """
    length = max_length(len(source)) if callable(max_length) else max_length
    if not is_integer(length) or length < 1:
        raise ConfigError(
            f"max_length={show(length)} for a source of {len(source)} tokens must be an integer >= 1: the length of "
            "the target, eos included"
        )
    return int(length)


def check_scores(scores: Tensor, step: int) -> None:
    """Raise CheckpointError if a score is NaN."""
    if bool(scores.isnan().any()):
        raise CheckpointError(
            f"the model's log-probabilities are nan at target token {step}: its weights are damaged, or training "
            "diverged; use an earlier checkpoint"
        )


def position_limit(model: Seq2Seq | LanguageModel, source: Sequence[int], number: int) -> int:
    """The number of tokens for which the model has positions after a source.

    Args:
        model: whose positions are counted.
        source: token ids.
        number: its index in the call of `generate`, for the message.

    Returns:
        Tokens; sys.maxsize if positions are unlimited.

    Raises:
        DataError: a prompt with more tokens than the model has positions.
    """
    max_length = model.max_length
    if max_length is None or not model.continues_input:
        return max_length or maxsize
    if len(source) > max_length:
        raise DataError(
            f"sources[{number}] has {len(source)} tokens, and the model has {max_length} positions; shorten the source"
        )
    return max_length - len(source) + 1  # the last token is never fed back, so it needs no position
