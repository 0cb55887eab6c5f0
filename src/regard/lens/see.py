"""A model's attention over one source and one target, or over one text."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from regard.data.published_tokenizer import PublishedTokenizer
from regard.data.tokenizer import Tokenizer
from regard.errors import ConfigError, DataError
from regard.layers.evaluation import in_evaluation
from regard.lens.alignment import END, Alignment, kind_of, merged
from regard.lens.attention_record import AttentionRecord
from regard.lens.record import Recording, record
from regard.lens.recording_view import view_of
from regard.lens.text import printable, shortened
from regard.lens.value_norm import value_norms
from regard.lens.view import View
from regard.lens.words import Words, words_read, words_written
from regard.models.language_model import LanguageModel
from regard.models.seq2seq import Seq2Seq
from regard.models.text_encoder import TextEncoder

LONGEST_TITLE = 80  # columns of a terminal


def look(
    module: Seq2Seq,
    tokenizer: Tokenizer,
    source: str,
    target: Sequence[int],
    *,
    target_words: Sequence[tuple[str, range]] | None = None,
) -> Alignment:
    """What a model attends to while it writes a target: the weights that it had, token by token.

    The row of a target word is the step that wrote it, so its weights are those that the word was chosen by.

    Args:
        module: the model; its mode stays as it is.
        tokenizer: of the model.
        source: what the model reads.
        target: the token ids that it wrote, or any others, without start and end.
        target_words: the parts of the target and their tokens, one after the other; by default its words.

    Returns:
        The weights between words: a word of the source gets the sum of its tokens' weights, a word of the target
        attends as its tokens do in the mean.

    Raises:
        ConfigError: a model without attention.
    """
    written = words_written(tokenizer, target)
    if target_words is not None:
        written = Words(written.tokens, list(target_words), list(range(len(target_words))), len(target_words))
    return look_at(module, words_read(tokenizer, source), written)


def look_at(module: Seq2Seq, read: Words, written: Words, *, norms: bool = False) -> Alignment:
    """What a model attends to, between the words of a source and of a target.

    Args:
        module: the model; its mode and its hooks are as before afterwards.
        read: the source.
        written: the target.
        norms: take the norms of the weighted values instead of the weights; see `value_norms`.

    Returns:
        The weights between words, and the numbers of the words.

    Raises:
        ConfigError: a model without attention.
    """
    vocabulary = module.vocabulary
    recording = _recorded(
        module, [*read.tokens, vocabulary.eos], None, [vocabulary.bos, *written.tokens], weights=True, values=norms
    )
    columns, rows = ([*side.spans, (END, range(len(side.tokens), len(side.tokens) + 1))] for side in (read, written))
    source_ranges, target_ranges = ([tokens for _, tokens in words] for words in (columns, rows))
    # the decoder reads a start mark before the target: the columns of its words stand one place later
    read_ranges = [range(1), *(range(r.start + 1, r.stop + 1) for r in target_ranges[:-1])]
    ranges = {
        "cross": (target_ranges, source_ranges),
        "encoder": (source_ranges, source_ranges),
        "decoder": (target_ranges, read_ranges),
    }
    maps = {path: _norms(module, path, one) if norms else one.weights for path, one in recording.items()}
    return Alignment(
        source=[word for word, _ in columns],
        target=[word for word, _ in rows],
        weights={path: merged(x[0].float().cpu(), *ranges[kind_of(path)]) for path, x in maps.items()},
        source_numbers=[*read.numbers, None],
        target_numbers=[*written.numbers, None],
    )


def look_within(
    module: TextEncoder | LanguageModel, tokenizer: PublishedTokenizer | Tokenizer, ids: Sequence[int]
) -> Alignment:
    """What a model that reads one text attends to in it.

    Args:
        module: the model; its mode stays as it is.
        tokenizer: of the model.
        ids: the tokens of the text, with its marks.

    Returns:
        The weights between words, marks included, as attention of the kind "encoder", of a language model "text";
        there is no target.

    Raises:
        ConfigError: a model without attention.
        DataError: no tokens, or more than the model has positions.
    """
    max_length = module.max_length
    if not ids or (max_length is not None and len(ids) > max_length):
        raise DataError(f"text has {len(ids)} tokens; expected 1 to {max_length}: see one or a few sentences")
    recording = _recorded(module, list(ids), weights=True)
    words = tokenizer.words(ids)
    ranges = [pieces for _, pieces in words]
    weights = {
        path: merged(attention.weights[0].float().cpu(), ranges, ranges) for path, attention in recording.items()
    }
    return Alignment(source=[word for word, _ in words], target=[], weights=weights)


def view_within(
    module: TextEncoder | LanguageModel,
    tokenizer: PublishedTokenizer | Tokenizer,
    ids: Sequence[int],
    *,
    grid: int = 64,
    top: int = 8,
    title: str = "",
) -> View:
    """What a model that reads one text attends to in it, over its tokens and at any length: no L x S memory is used.

    Args:
        module: the model; its mode stays as it is.
        tokenizer: of the model.
        ids: the tokens of the text, with its marks.
        grid: bins on each side of a map, at most.
        top: largest weights that are kept of each token.
        title: of the view.

    Returns:
        The maps of all layers and heads.

    Raises:
        ConfigError: a model without attention.
        DataError: no tokens, or more than the model has positions.
    """
    max_length = module.max_length
    if not ids or (max_length is not None and len(ids) > max_length):
        raise DataError(f"text has {len(ids)} tokens; expected 1 to {max_length}")
    recording = _recorded(module, list(ids), grid=grid, top=top)
    return view_of(
        recording,
        tokenizer.pieces(ids),
        title=shortened(printable(" ".join(title[: 2 * LONGEST_TITLE].split())), LONGEST_TITLE),
    )


def _norms(module: nn.Module, path: str, recording: AttentionRecord) -> torch.Tensor:
    """Norms of the weighted values, (B, H, L, S), after the output projection if there is one."""
    if recording.value is None:
        raise ConfigError(f"the values of {path!r} are not recorded; their norms are not known")
    projection = getattr(module.get_submodule(path), "output_proj", None)
    weight = None if projection is None else projection.weight.detach()
    return value_norms(recording.weights, recording.value, weight)


def _recorded(module: nn.Module, *sequences: list[int] | None, **settings: Any) -> Recording:
    """What the attentions of a model do as it reads sequences of ids, in evaluation mode; see `record`."""
    device = next(module.parameters()).device
    module = in_evaluation(module)
    inputs = [None if ids is None else torch.tensor([ids], device=device) for ids in sequences]
    with torch.no_grad(), warnings.catch_warnings(action="ignore"), record(module, **settings) as recording:
        module(*inputs)
    if not recording:
        raise ConfigError(f"{type(module).__name__} has no attention to look at")
    return recording
