"""Conversion between regard's models and published checkpoints: configuration fields and tensor names.

Each family has one table of tensor names, used for reading and for writing. A model is first built on PyTorch's "meta"
device, without memory, and then filled with the checkpoint's tensors, so that no configuration can allocate more than
the file holds.
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

MAX_SHOWN = 5  # tensors of a kind that a message lists
MAX_MISSING = 1000  # missing tensors after which a table of names is not read further
# Exceptions of building a model from sizes of a wrong type or beyond memory.
BUILD_ERRORS = (RegardError, ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError)
# Activations: names in published configurations, and in regard.
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
TRAINING = "training only"
HEADS = "heads: recognized by their tensors"
RETURNED = "what the transformers package's models return"
TOKENS = "tokens: read from the tokenizer's files"
# Fields of all families.
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
    **dict.fromkeys(("sep_token_id", "tokenizer_class"), TOKENS),
    **dict.fromkeys(("dtype", "torch_dtype", "use_bfloat16"), "dtype: that of the tensors is used"),
    **dict.fromkeys(("attn_implementation", "chunk_size_feed_forward", "use_cache"), "speed and memory only"),
    **dict.fromkeys(
        ("gradient_checkpointing", "initializer_range", "neftune_noise_alpha", "tf_legacy_loss"), TRAINING
    ),
    **dict.fromkeys(
        (
            "custom_pipelines", "export_model_type", "max_sequence_length", "model_max_length", "name_or_path",
            "transformers.js_config", "transformers_version", "unsloth_fixed", "unsloth_version",
        ),
        "metadata",
    ),
}  # fmt: skip


class TensorName(NamedTuple):
    """The name of a model's tensor in a checkpoint.

    Args:
        ours: name in regard's model.
        theirs: name of the checkpoint's tensor that holds it.
        transposed: whether a weight is stored as (in_features, out_features), as in GPT-2, instead of
            (out_features, in_features).
        part: its index, if the checkpoint's tensor concatenates several along the outputs.
        parts: number of tensors so concatenated, all of one size.
        optional: whether it may be missing; it is then filled with 0.
    """

    ours: str
    theirs: str
    transposed: bool = False
    part: int = 0
    parts: int = 1
    optional: bool = False


def weight_and_bias(ours: str, theirs: str, *, bias: bool = True) -> Iterator[TensorName]:
    """Names of the weight of a module and of its bias, if it has one."""
    for kind in ("weight", "bias")[: 1 + bias]:
        yield TensorName(f"{ours}.{kind}", f"{theirs}.{kind}")


class ConfigFields(NamedTuple):
    """The known fields of a family's config.json. Unknown fields are refused.

    Args:
        title: name of the family in messages.
        read: fields that decide what is computed.
        supported: the supported values of fields of which other values are refused.
        irrelevant: fields that change nothing here, and why.
        aliases: alternative names of fields.
    """

    title: str
    read: tuple[str, ...]
    supported: Mapping[str, tuple[Any, ...]]
    irrelevant: Mapping[str, str]
    aliases: Mapping[str, str] = {}


@final
class RenamedTensors(Mapping[str, Tensor]):
    """A view of a checkpoint's tensors under new names.

    Args:
        state: tensors by their old names.
        rename: the new name of an old one; if two tensors get the same name, the second keeps its old one.
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


def check_supported(family: str, config: Mapping[str, Any], supported: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise unless the fields of a configuration have supported values.

    Args:
        family: name in messages.
        config: fields by name.
        supported: the supported values of each field; a missing field is not checked.

    Raises:
        UnsupportedError: a field with another value.
    """
    for name, values in supported.items():
        if name in config and not any(config[name] == x for x in values):
            expected = " or ".join(map(repr, values))
            raise UnsupportedError(f"{family}: {name}={show(config[name])} is not supported; expected {expected}")


def activation_of(family: str, config: Mapping[str, Any], field: str) -> str:
    """The name in regard of the activation in a configuration's field.

    Args:
        family: name in messages.
        config: fields by name.
        field: name of the field, which must be there, such as "hidden_act".

    Returns:
        A name that `FeedForward` takes.

    Raises:
        UnsupportedError: an unknown activation.
    """
    name = config[field]
    if not isinstance(name, str) or name not in ACTIVATIONS:
        expected = ", ".join(ACTIVATIONS)
        raise UnsupportedError(f"{family}: {field}={show(name)} is not supported; expected one of {expected}")
    return ACTIVATIONS[name]


def published_activation(name: str) -> str:
    """The name of one of regard's activations in published configurations."""
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == name)


def suppressed_tokens(family: str, config: Mapping[str, Any], ends: Collection[int] = ()) -> tuple[int, ...]:
    """The token ids that are never generated, from the fields bad_words_ids and suppress_tokens.

    Args:
        family: name in messages.
        config: fields by name.
        ends: ids of end tokens, which are ignored in bad_words_ids.

    Returns:
        Token ids; sequences of several tokens in bad_words_ids are left out.

    Raises:
        UnsupportedError: a field that is not a list of token ids.
    """
    words, tokens = config.get("bad_words_ids") or [], config.get("suppress_tokens") or []
    lists = isinstance(words, list) and isinstance(tokens, list)
    words = [word if isinstance(word, list) else [word] for word in words] if lists else []
    flat = [token for word in (*words, tokens) for token in word] if lists else []
    if not lists or not all(words) or not all(is_integer(token) and token >= 0 for token in flat):
        raise UnsupportedError(
            f"{family}: bad_words_ids={show(config.get('bad_words_ids'))} and suppress_tokens={show(tokens)} are not "
            "supported; expected a list of lists of token ids, and a list of token ids"
        )
    single_tokens = (word[0] for word in words if len(word) == 1 and word[0] not in ends)
    return tuple(dict.fromkeys((*single_tokens, *tokens)))


def published_vocabulary(family: str, config: Mapping[str, Any], start: str = "bos_token_id") -> Vocabulary:
    """The vocabulary of a published configuration.

    Args:
        family: name in messages.
        config: fields by name: vocab_size; eos_token_id, an id or a list of ids; the field `start` and pad_token_id,
            which may be missing or None; bad_words_ids and suppress_tokens.
        start: the field of the token that targets or texts start with.

    Returns:
        The vocabulary; a missing start or padding token is replaced by the first end token.

    Raises:
        CheckpointError: a size that is not an integer, or token ids beyond it.
        KeyError: no vocab_size.
        UnsupportedError: as for `suppressed_tokens`.
    """
    size, eos = config["vocab_size"], config.get("eos_token_id")
    ends = eos if isinstance(eos, list) else [eos]
    special = {name: config.get(name) for name in (start, "pad_token_id")}
    tokens = [*ends, *(x for x in special.values() if x is not None)]
    if not (is_integer(size) and ends and all(is_integer(x) and 0 <= x < size for x in tokens)):
        listing = ", ".join(f"{name}={x!r:.50}" for name, x in special.items())
        raise CheckpointError(
            f"{family}: vocab_size={size!r:.50}, eos_token_id={eos!r:.50}, {listing}; expected a number of tokens and "
            "token ids below it; the last two may be null"
        )
    never = suppressed_tokens(family, config, ends)
    if any(token >= size for token in never):
        raise CheckpointError(
            f"{family}: bad_words_ids and suppress_tokens have the token id {max(never)}; expected ids below "
            f"vocab_size={size}"
        )
    bos, pad = (ends[0] if x is None else x for x in special.values())
    return Vocabulary(size=size, pad=pad, bos=bos, eos=ends[0], more_eos=tuple(ends[1:]), never=never)


def special_token_fields(vocabulary: Vocabulary) -> dict[str, Any]:
    """The fields of a published configuration for a vocabulary: its size and special tokens.

    Args:
        vocabulary: of the model.

    Returns:
        vocab_size, bos_token_id, eos_token_id, pad_token_id, and bad_words_ids if the vocabulary has `never`.
    """
    eos = [vocabulary.eos, *vocabulary.more_eos] if vocabulary.more_eos else vocabulary.eos
    return {
        "vocab_size": vocabulary.size,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": eos,
        "pad_token_id": vocabulary.pad,
        **({"bad_words_ids": [[token] for token in vocabulary.never]} if vocabulary.never else {}),
    }


def build_on_meta(family: str, build: Callable[[], Model]) -> Model:
    """Build a model on PyTorch's "meta" device, where tensors take no memory.

    Args:
        family: name in messages.
        build: builds the model.

    Returns:
        The model, whose tensors must be replaced; no random number is drawn.

    Raises:
        CheckpointError: inconsistent or impossible sizes.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _SkipInit():
            return build()
    except BUILD_ERRORS as error:
        raise CheckpointError(f"{family}: no model can be built from the configuration: {error}") from error


def load_tensors(
    family: str,
    build: Callable[[], Model],
    state: Mapping[str, Tensor],
    names: Iterable[TensorName],
    *,
    same: Mapping[str, str] | None = None,
    ignored: Collection[str] = (),
) -> Model:
    """Build a model with the tensors of a checkpoint.

    Args:
        family: name in messages.
        build: builds the model.
        state: the checkpoint's tensors by name, each read once.
        names: table of the names of all the model's tensors. It is read before the model is built, up to MAX_MISSING
            missing tensors, so that a configuration of a million layers costs nothing.
        same: further names of tensors in the table, each with the first name: if present, they must be equal.
        ignored: patterns of the names of tensors that the model does not need, such as "*.position_ids".

    Returns:
        The model in evaluation mode, with copies of the tensors: in float64 if the first is, else in float32.

    Raises:
        CheckpointError: tensors that are missing, unexpected, of another shape or not floating-point.
    """
    table: list[TensorName] = []
    missing: dict[str, None] = {}
    for named in names:
        if named.theirs in state or named.optional:
            table.append(named)
        else:
            missing[named.theirs] = None
        if len(missing) > MAX_MISSING:
            break
    same = same or {}
    known = {*(named.theirs for named in table), *same}
    unexpected = [name for name in state if name not in known and not any(fnmatchcase(name, p) for p in ignored)]
    differing = [f"{name} and {of}" for name, of in same.items() if name in state and not _equal(state, name, of)]
    _check_tensors(family, {"missing": missing, "unexpected": unexpected, "shared, but not equal": differing})
    model = build_on_meta(family, build)
    tensors, owners = model.state_dict(keep_vars=True), _owners(model)
    wrong, dtype = [], None
    for named in sorted(table, key=lambda named: named.theirs not in state):  # optional missing ones last
        old = tensors[named.ours]
        if named.theirs in state:
            x, stored = state[named.theirs].detach(), _stored_shape(named, tuple(old.shape))
            if not x.is_floating_point() or tuple(x.shape) not in (stored, (1, *stored)):
                wrong.append(f"{named.theirs} {x.dtype} {tuple(x.shape)}, expected floating-point {stored}")
                continue
            dtype = dtype or torch.promote_types(x.dtype, torch.float32)
            new = _part(named, x).reshape(old.shape).to(dtype, copy=True).contiguous()
        else:
            _check_tensors(family, {"of another shape or dtype": wrong})  # before a size from config.json takes memory
            new = torch.zeros(old.shape, dtype=dtype)
        for module, attribute in owners[id(old)]:
            setattr(module, attribute, nn.Parameter(new) if isinstance(old, nn.Parameter) else new)
    _check_tensors(family, {"of another shape or dtype": wrong})
    return model.eval()


def export_tensors(model: nn.Module, names: Iterable[TensorName]) -> dict[str, Tensor]:
    """A model's tensors under the names of a checkpoint.

    Args:
        model: whose tensors are written.
        names: the table that `load_tensors` takes; names of tensors that the model lacks are left out.

    Returns:
        Detached tensors by name; those that need no conversion share their memory with the model's.
    """
    state = model.state_dict()
    parts: dict[tuple[str, bool], list[Tensor]] = {}
    for named in names:
        if named.ours in state:
            x = state[named.ours].detach()
            parts.setdefault((named.theirs, named.transposed), []).append(x)
    whole = {name: xs[0] if len(xs) == 1 else torch.cat(xs) for name, xs in parts.items()}
    return {theirs: x.t().contiguous() if transposed else x for (theirs, transposed), x in whole.items()}


def summarize_names(names: Iterable[str]) -> str:
    """The first MAX_SHOWN names, and the number of others."""
    all_names = list(names)
    more = [f"and {len(all_names) - MAX_SHOWN} more"] if len(all_names) > MAX_SHOWN else []
    return ", ".join([*all_names[:MAX_SHOWN], *more])


def describe_mismatches(wrong: Mapping[str, Collection[str]]) -> str:
    """Names by kind of mismatch, as text for a message; empty if there are none."""
    return "; ".join(f"{kind}: {summarize_names(names)}" for kind, names in wrong.items() if names)


@final
class _SkipInit(TorchFunctionMode):
    """Skips the random initialization of parameters.

    On the "meta" device there is nothing to fill, and PyTorch would first import its compiler, for seconds.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _check_tensors(family: str, wrong: Mapping[str, Collection[str]]) -> None:
    """Raise CheckpointError if there are mismatches of any kind."""
    if mismatches := describe_mismatches(wrong):
        raise CheckpointError(f"{family}: the tensors do not match the configuration: {mismatches}")


def _equal(state: Mapping[str, Tensor], one: str, other: str) -> bool:
    return other in state and torch.equal(state[one], state[other])


def _stored_shape(named: TensorName, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the checkpoint's tensor, from that of the model's tensor."""
    whole = (shape[0] * named.parts, *shape[1:]) if named.parts > 1 else shape
    return whole[::-1] if named.transposed else whole


def _part(named: TensorName, x: Tensor) -> Tensor:
    """The model's tensor, from the checkpoint's: transposed, or one of several parts, if so stored."""
    weight = x.t() if named.transposed else x
    return weight if named.parts == 1 else weight.tensor_split(named.parts)[named.part]


def _owners(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """The module and attribute of each parameter and buffer, by its id(); several if it is shared."""
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for attribute, x in (*module._parameters.items(), *module._buffers.items()):
            owners.setdefault(id(x), []).append((module, attribute))
    return owners
