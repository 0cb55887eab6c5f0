"""What the families of published checkpoints share: fields that say how to compute, and tensors by other names.

A family has one table of names, which says where each tensor of its model stands in the checkpoint; the table reads
and writes. A model is built without memory first and then takes the checkpoint's tensors, so that a configuration can
ask for no more than the file holds.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeVar, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from regard.attention.check import is_integer, show
from regard.errors import CheckpointError, RegardError, UnsupportedError
from regard.models.seq2seq import Vocabulary

SHOWN = 5  # tensors that a message lists of each kind
MOST_MISSING = 1000  # that are looked for
# What sizes of a wrong type, or beyond all memory, end in.
WRONG = (RegardError, ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError)
# Names of activations in published configurations, and ours.
ACTIVATIONS = {
    "relu": "relu",
    "relu2": "relu-squared",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu-tanh",
    "gelu_fast": "gelu-tanh",
    "gelu_pytorch_tanh": "gelu-tanh",
    "gelu_python_tanh": "gelu-tanh",
    "quick_gelu": "quick-gelu",
    "silu": "swish",
    "swish": "swish",
    "mish": "mish",
    "tanh": "tanh",
}
Model = TypeVar("Model", bound=nn.Module)
TRAINING = "of training"
HEADS = "of heads, which their tensors tell"
RETURNED = "of what the package's models return"
MARKS = "of tokens, which the tokenizer's files tell"
# Fields that the files of every family may have.
COMMON_ONLY: dict[str, tuple[Any, ...]] = {
    "auto_map": ({}, None),  # the folder's own code
    "per_layer_config": ({}, None),
    "pruned_heads": ({}, None),
    "quantization": (None,),
    "quantization_config": (None,),
    "tie_encoder_decoder": (False, None),
}
COMMON_IRRELEVANT = {
    **dict.fromkeys(("architectures", "id2label", "label2id", "num_labels", "problem_type", "finetuning_task"), HEADS),
    **dict.fromkeys(
        (
            "output_attentions", "output_hidden_states", "output_past", "return_dict", "tie_last_hidden_states",
            "torchscript",
        ),
        RETURNED,
    ),
    **dict.fromkeys(("sep_token_id", "tokenizer_class"), MARKS),
    **dict.fromkeys(("dtype", "torch_dtype", "use_bfloat16"), "of tensors, which have their own"),
    **dict.fromkeys(("attn_implementation", "chunk_size_feed_forward", "use_cache"), "of speed and memory"),
    **dict.fromkeys(
        ("gradient_checkpointing", "initializer_range", "neftune_noise_alpha", "tf_legacy_loss"), TRAINING
    ),
    **dict.fromkeys(
        (
            "custom_pipelines", "export_model_type", "max_sequence_length", "model_max_length", "name_or_path",
            "transformers.js_config", "transformers_version", "unsloth_fixed", "unsloth_version",
        ),
        "a note",
    ),
}  # fmt: skip


class Named(NamedTuple):
    """Where a tensor of a model stands in a checkpoint.

    Args:
        ours: its name in the model.
        theirs: the name of the checkpoint's tensor that holds it.
        transposed: whether a map is stored as (inputs, outputs), as GPT-2's are, and not as (outputs, inputs).
        part: which of the tensors that stand together in one of theirs, one after the other along their outputs.
        parts: how many these are, all of one size.
        optional: whether it may be missing, and then is 0.
    """

    ours: str
    theirs: str
    transposed: bool = False
    part: int = 0
    parts: int = 1
    optional: bool = False


class Fields(NamedTuple):
    """What is made of the fields that the config.json of a family may have.

    A field that is in none of these is refused, since nobody knows what it changes.

    Args:
        title: of the family, in messages.
        read: those that decide what is computed.
        only: those of which some values are supported, the others refused.
        irrelevant: those that change nothing here, and why.
        aliases: second names of fields, under which some files have them.
    """

    title: str
    read: tuple[str, ...]
    only: Mapping[str, tuple[Any, ...]]
    irrelevant: Mapping[str, str]
    aliases: Mapping[str, str] = {}


@final
class Renamed(Mapping[str, Tensor]):
    """A checkpoint's tensors under other names.

    Args:
        state: the tensors by the names that they have.
        rename: gives the new name of each; where two get the same one, the second keeps the name it has.
    """

    def __init__(self, state: Mapping[str, Tensor], rename: Callable[[str], str]) -> None:
        self._state = state
        self._old: dict[str, str] = {}
        for name in state:
            new = rename(name)
            self._old[name if new in self._old else new] = name

    def __getitem__(self, name: str) -> Tensor:
        return self._state[self._old[name]]

    def __contains__(self, name: object) -> bool:
        return name in self._old

    def __iter__(self) -> Iterator[str]:
        return iter(self._old)

    def __len__(self) -> int:
        return len(self._old)


def check_only(family: str, config: Mapping[str, Any], only: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise unless fields that change the mathematics say what is supported.

    Args:
        family: that a message names.
        config: fields by name.
        only: the supported values of each field; one that is missing is not looked at.

    Raises:
        UnsupportedError: another value.
    """
    for name, supported in only.items():
        if name in config and not any(config[name] == x for x in supported):
            expected = " or ".join(map(repr, supported))
            raise UnsupportedError(f"{family}: {name}={show(config[name])} is not supported; expected {expected}")


def activation_of(family: str, config: Mapping[str, Any], field: str) -> str:
    """Our name of the activation that a field names.

    Args:
        family: that a message names.
        config: fields by name; this one must be there.
        field: such as "hidden_act".

    Returns:
        A name that `FeedForward` takes.

    Raises:
        UnsupportedError: an activation that is not known here.
    """
    given = config[field]
    if not isinstance(given, str) or given not in ACTIVATIONS:
        expected = ", ".join(ACTIVATIONS)
        raise UnsupportedError(f"{family}: {field}={show(given)} is not supported; expected one of {expected}")
    return ACTIVATIONS[given]


def published_activation(name: str) -> str:
    """The name that published configurations have for one of our activations."""
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == name)


def never_of(family: str, config: Mapping[str, Any], ends: Collection[int] = ()) -> tuple[int, ...]:
    """The tokens that no target may have, as the fields bad_words_ids and suppress_tokens say.

    Args:
        family: that a message names.
        config: fields by name.
        ends: end marks, which bad_words_ids says nothing about.

    Returns:
        The tokens; sequences of several, of which bad_words_ids may have some, are not among them.

    Raises:
        UnsupportedError: what is no list of tokens.
    """
    words, tokens = config.get("bad_words_ids") or [], config.get("suppress_tokens") or []
    lists = isinstance(words, list) and isinstance(tokens, list)
    words = [word if isinstance(word, list) else [word] for word in words] if lists else []
    flat = [token for word in (*words, tokens) for token in word] if lists else []
    if not lists or not all(words) or not all(is_integer(token) and token >= 0 for token in flat):
        raise UnsupportedError(
            f"{family}: bad_words_ids={show(config.get('bad_words_ids'))} and suppress_tokens={show(tokens)} are not "
            "supported; expected lists of lists of tokens, and of tokens"
        )
    alone = (word[0] for word in words if len(word) == 1 and word[0] not in ends)
    return tuple(dict.fromkeys((*alone, *tokens)))


def published_vocabulary(family: str, config: Mapping[str, Any], start: str = "bos_token_id") -> Vocabulary:
    """The vocabulary of a published configuration.

    Args:
        family: that a message names.
        config: fields by name: vocab_size; eos_token_id, a token or a list of them; the field of the start mark and
            pad_token_id, which may be missing or None; bad_words_ids and suppress_tokens.
        start: the field of the token that targets or texts start with.

    Returns:
        The vocabulary; a missing mark is the first of those that end a text.

    Raises:
        CheckpointError: a size or token that is none.
        KeyError: no vocab_size.
        UnsupportedError: as for `never_of`.
    """
    size, given = config["vocab_size"], config.get("eos_token_id")
    ends = given if isinstance(given, list) else [given]
    marks = {name: config.get(name) for name in (start, "pad_token_id")}
    tokens = [*ends, *(x for x in marks.values() if x is not None)]
    if not (is_integer(size) and ends and all(is_integer(x) and 0 <= x < size for x in tokens)):
        said = ", ".join(f"{name}={x!r:.50}" for name, x in marks.items())
        raise CheckpointError(
            f"{family}: vocab_size={size!r:.50}, eos_token_id={given!r:.50}, {said}; expected a number of tokens and "
            "ids below it, of which the last two may be null"
        )
    never = never_of(family, config, ends)
    if any(token >= size for token in never):
        raise CheckpointError(
            f"{family}: bad_words_ids and suppress_tokens name the token {max(never)}; expected ids below "
            f"vocab_size={size}"
        )
    bos, pad = (ends[0] if x is None else x for x in marks.values())
    return Vocabulary(size=size, pad=pad, bos=bos, eos=ends[0], more_eos=tuple(ends[1:]), never=never)


def published_marks(words: Vocabulary) -> dict[str, Any]:
    """The fields of a published configuration that say what tokens are for.

    Args:
        words: a vocabulary.

    Returns:
        vocab_size, bos_token_id, eos_token_id, pad_token_id, and bad_words_ids if some tokens never come.
    """
    return {
        "vocab_size": words.size,
        "bos_token_id": words.bos,
        "eos_token_id": [words.eos, *words.more_eos] if words.more_eos else words.eos,
        "pad_token_id": words.pad,
        **({"bad_words_ids": [[token] for token in words.never]} if words.never else {}),
    }


def built(family: str, build: Callable[[], Model]) -> Model:
    """A model whose tensors take no memory, to be filled.

    Args:
        family: that a message names.
        build: makes it.

    Returns:
        The model on PyTorch's "meta" device; no random number is drawn.

    Raises:
        CheckpointError: sizes that don't go together, or that no tensor can have.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _WithoutStart():
            return build()
    except WRONG as error:
        raise CheckpointError(f"{family}: the configuration describes no model that can be built: {error}") from error


def read_named(
    family: str,
    build: Callable[[], Model],
    state: Mapping[str, Tensor],
    names: Iterable[Named],
    *,
    same: Mapping[str, str] | None = None,
    ignored: Collection[str] = (),
) -> Model:
    """A model with the tensors of a checkpoint.

    Args:
        family: that a message names.
        build: makes the model.
        state: the checkpoint's tensors by name; each is read when its turn comes.
        names: the table, of all the model's tensors. It is read before the model is built, and no further than the
            checkpoint goes: a configuration of a million layers costs nothing.
        same: second names of tensors that the table has, by second name: where one is there, it must be equal.
        ignored: patterns of names, such as "*.position_ids", whose tensors say nothing that the model needs.

    Returns:
        The model in evaluation mode, with copies of the tensors: in float64 if the first is, else in float32.

    Raises:
        CheckpointError: tensors that are missing, unknown, of another shape or not of real numbers.
    """
    table: list[Named] = []
    missing: dict[str, None] = {}
    for named in names:
        if named.theirs in state or named.optional:
            table.append(named)
        else:
            missing[named.theirs] = None
        if len(missing) > MOST_MISSING:
            break
    same = same or {}
    known = {*(named.theirs for named in table), *same}
    unexpected = [name for name in state if name not in known and not any(fnmatchcase(name, p) for p in ignored)]
    differing = [f"{name} and {of}" for name, of in same.items() if name in state and not _equal(state, name, of)]
    _refuse(family, {"missing": missing, "unexpected": unexpected, "not equal, though one": differing})
    model = built(family, build)
    tensors, places = model.state_dict(keep_vars=True), _places(model)
    wrong, dtype = [], None
    for named in sorted(table, key=lambda named: named.theirs not in state):  # what is missing last
        old = tensors[named.ours]
        if named.theirs in state:
            x, stored = state[named.theirs].detach(), _stored_shape(named, tuple(old.shape))
            if not x.is_floating_point() or tuple(x.shape) not in (stored, (1, *stored)):
                wrong.append(f"{named.theirs} {x.dtype} {tuple(x.shape)} for real numbers {stored}")
                continue
            dtype = dtype or torch.promote_types(x.dtype, torch.float32)
            new = _part(named, x).reshape(old.shape).to(dtype, copy=True).contiguous()
        else:
            _refuse(family, {"of another kind": wrong})  # before a size that no tensor has confirmed takes memory
            new = torch.zeros(old.shape, dtype=dtype)
        for part, leaf in places[id(old)]:
            setattr(part, leaf, nn.Parameter(new) if isinstance(old, nn.Parameter) else new)
    _refuse(family, {"of another kind": wrong})
    return model.eval()


def write_named(model: nn.Module, names: Iterable[Named]) -> dict[str, Tensor]:
    """The tensors of a model by a checkpoint's names.

    Args:
        model: whose tensors are taken.
        names: the table that reads them; names that the model lacks are left out.

    Returns:
        The tensors, detached; those that are stored as they are share their memory with the model's.
    """
    ours = model.state_dict()
    parts: dict[tuple[str, bool], list[Tensor]] = {}
    for named in names:
        if named.ours in ours:
            x = ours[named.ours].detach()
            parts.setdefault((named.theirs, named.transposed), []).append(x)
    whole = {name: xs[0] if len(xs) == 1 else torch.cat(xs) for name, xs in parts.items()}
    return {theirs: x.t().contiguous() if transposed else x for (theirs, transposed), x in whole.items()}


def some(names: Iterable[str]) -> str:
    """The first of the names, and how many more there are."""
    listed = list(names)
    more = [f"and {len(listed) - SHOWN} more"] if len(listed) > SHOWN else []
    return ", ".join([*listed[:SHOWN], *more])


def misfits(wrong: Mapping[str, Collection[str]]) -> str:
    """What does not fit, by kind; empty if all is well."""
    return "; ".join(f"{kind}: {some(names)}" for kind, names in wrong.items() if names)


@final
class _WithoutStart(TorchFunctionMode):
    """Leaves tensors as they are that a model would start with random numbers.

    They have no memory to be filled; and to draw for them PyTorch would first import its compiler, for seconds.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _refuse(family: str, wrong: Mapping[str, Collection[str]]) -> None:
    if said := misfits(wrong):
        raise CheckpointError(f"{family}: the tensors are not those of the configuration: {said}")


def _equal(state: Mapping[str, Tensor], one: str, other: str) -> bool:
    return other in state and torch.equal(state[one], state[other])


def _stored_shape(named: Named, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the checkpoint's tensor that holds one of ours."""
    whole = (shape[0] * named.parts, *shape[1:]) if named.parts > 1 else shape
    return whole[::-1] if named.transposed else whole


def _part(named: Named, x: Tensor) -> Tensor:
    """What a tensor of the checkpoint holds of ours."""
    turned = x.t() if named.transposed else x
    return turned if named.parts == 1 else turned.tensor_split(named.parts)[named.part]


def _places(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Where each tensor stands, by its identity: in several places if it is shared."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for part in model.modules():
        for leaf, x in (*part._parameters.items(), *part._buffers.items()):
            places.setdefault(id(x), []).append((part, leaf))
    return places
