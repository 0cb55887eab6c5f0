"""What is asked of sources and of a model before and while targets are looked for."""

from collections.abc import Callable, Sequence

from torch import Tensor

from regard.attention.check import is_integer, show
from regard.errors import CheckpointError, ConfigError, DataError
from regard.models.seq2seq import Vocabulary


def check_sources(sources: Sequence[Sequence[int]], vocabulary: Vocabulary) -> None:
    """Raise DataError unless these are ids of the vocabulary, without `pad`."""
    for number, source in enumerate(sources):
        if not isinstance(source, Sequence):
            raise DataError(
                f"sources[{number}]={show(source)} must be a list of token ids; for one source give [source]"
            )
        for token in source:
            if not is_integer(token) or not 0 <= token < vocabulary.size or token == vocabulary.pad:
                raise DataError(
                    f"sources[{number}] has the token {show(token)}; expected ids from 0 to {vocabulary.size - 1} "
                    f"without pad={vocabulary.pad}, which `generate` adds itself"
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
