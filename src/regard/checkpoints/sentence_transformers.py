"""Folders of the sentence-transformers package: how the vectors of a model's tokens become one of a text.

    modules.json                            the steps from a text to its vector, each with its class and its folder
    config_sentence_transformers.json       prompts, and what vectors are compared by
    sentence_bert_config.json               of the step Transformer: how much of a text is read, and in which case
    1_Pooling/config.json                   and so on: the settings of a step, and its tensors if it has some

As versions 2 to 6 of the package write them. Every field is read, or refused by name unless it changes nothing.

Source: Reimers and Gurevych 2019, arXiv 1908.10084.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, final

import safetensors.torch
from torch import Tensor, nn
from torch.nn import functional

from regard.attention.check import is_integer, show
from regard.checkpoints.folder import CONFIG, WEIGHTS, need, open_weights, read_json
from regard.errors import CheckpointError, UnsupportedError, nearest
from regard.models.pooling import POOLINGS, SEPARATOR, Embedding
from regard.models.published import build_on_meta

MODULES = "modules.json"
MODEL = "config_sentence_transformers.json"
TRANSFORMER = "sentence_bert_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
PACKAGE = "sentence_transformers."  # what the class of each step starts with
VECTOR = "sentence_embedding"  # the name under which steps pass on the text's vector
# The names of poolings in version 5.3 and before, in the order in which their vectors stand.
OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
ACTIVATIONS: dict[str, type[nn.Module]] = {
    made.__name__: made for made in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid)
}
TEXT_ALONE = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
OTHER_ARGUMENTS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
# Of each file, fields that are read, and those of which some values are supported.
READ = {
    MODEL: ("prompts", "default_prompt_name", "similarity_fn_name"),
    TRANSFORMER: ("max_seq_length", "do_lower_case"),
    "Pooling": ("pooling_mode", *OLD_POOLINGS, "include_prompt"),
    "Dense": ("in_features", "out_features", "bias", "activation_function", "use_residual"),
    "LayerNorm": ("dimension",),
    "Normalize": (),
    "Dropout": (),
}
THROUGH: dict[str, tuple[Any, ...]] = {
    "module_input_name": (VECTOR, None),
    "module_output_name": (VECTOR, None),
}
ONLY: dict[str, dict[str, tuple[Any, ...]]] = {
    MODEL: {"model_type": ("SentenceTransformer", None)},
    TRANSFORMER: {
        "transformer_task": ("feature-extraction", None),
        "module_output_name": ("token_embeddings", None),
        "modality_config": (TEXT_ALONE, None),
        "processing_kwargs": ({}, None),
        "query_length": (None,),
        "document_length": (None,),
        "query_expansion": (None,),
        "tokenizer_name_or_path": (None,),
        **dict.fromkeys(OTHER_ARGUMENTS, ({}, None)),
    },
    "Dense": THROUGH,
    "Normalize": THROUGH,
}
IRRELEVANT = {
    MODEL: ("__version__", "requirements"),
    TRANSFORMER: ("unpad_inputs", "backend"),
    "Pooling": ("embedding_dimension", "word_embedding_dimension"),
    "Dropout": ("dropout",),
}
LONGEST = 10**9  # above which a length of tokens is a sign for none


class Layout(NamedTuple):
    """What such a folder holds.

    Args:
        transformer: the folder of the model and its tokenizer.
        embedding: what follows it.
        lowercase: whether texts are read in lower case.
    """

    transformer: Path
    embedding: Embedding
    lowercase: bool


@final
class Dense(nn.Module):
    """A linear map and an activation, plus the vector itself or a linear map of it if asked.

    Args:
        in_features: numbers of the vector.
        out_features: numbers of what comes of it.
        bias: whether the map adds one.
        activation: the name of a class of torch.nn.
        residual: whether the vector is added.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool, activation: str, residual: bool) -> None:
        super().__init__()
        self.in_features, self.out_features, self.use_residual = in_features, out_features, residual
        self.linear = nn.Linear(in_features, out_features, bias)
        self.activation = ACTIVATIONS[activation]()
        if residual and in_features != out_features:
            self.residual = nn.Linear(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The vectors (B, out_features) of vectors (B, in_features)."""
        found: Tensor = self.activation(self.linear(x))
        if not self.use_residual:
            return found
        return found + (self.residual(x) if hasattr(self, "residual") else x)


@final
class Norm(nn.Module):
    """Layer normalization of the vector, under the name that its tensors have in such folders.

    Args:
        dimension: numbers of the vector.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)

    def forward(self, x: Tensor) -> Tensor:
        """The normalized vectors (B, D) of vectors (B, D)."""
        found: Tensor = self.norm(x)
        return found


@final
class Normalize(nn.Module):
    """Makes vectors as long as 1."""

    def forward(self, x: Tensor) -> Tensor:
        """The vectors (B, D) of length 1 in the directions of vectors (B, D)."""
        return functional.normalize(x, dim=-1)


def read_layout(folder: Path, inside: Callable[[Path], Path]) -> Layout | None:
    """What a folder of the package holds.

    Args:
        folder: the folder.
        inside: gives a path back if it leads into the folder, and raises CheckpointError if not.

    Returns:
        It, or None if there is no modules.json.

    Raises:
        CheckpointError: files that are missing or damaged.
        UnsupportedError: a step, or a setting of one, that is not computed here.
    """
    if not (folder / MODULES).is_file():
        return None
    path = inside(folder / MODULES)
    steps = [_step(path, step) for step in read_json(path, list)]
    kinds = [kind for kind, _ in steps]
    if kinds[:1] != ["Transformer"] or kinds[1:2] not in ([], ["Pooling"]) or {"Transformer", "Pooling"} & {*kinds[2:]}:
        raise UnsupportedError(
            f"{path}: the steps {', '.join(kinds) or 'none'} are not supported; expected Transformer, Pooling, and "
            "then others"
        )
    transformer = folder / steps[0][1]
    of_model = _read(folder / MODEL, MODEL, inside)
    of_text = _read(_file_of_text(transformer), TRANSFORMER, inside)
    pooling: dict[str, Any] = {}
    after: list[nn.Module] = []
    for kind, place in steps[1:]:
        said = _read(folder / place / CONFIG, kind, inside)
        if kind == "Pooling":
            pooling = _pooling(folder / place, said)
        elif kind != "Dropout":
            after.append(_made(folder / place, kind, said, inside))
    longest = of_text.get("max_seq_length") or _length_of_tokenizer(transformer, inside)
    if longest is not None and not (is_integer(longest) and longest > 0):
        raise CheckpointError(f"{transformer}: max_seq_length={show(longest)}; expected a number of tokens above 0")
    embedding = Embedding(**pooling, **_of_model(folder / MODEL, of_model), longest=longest, steps=tuple(after))
    return Layout(transformer, embedding, of_text.get("do_lower_case") is True)


def layout_files(embedding: Embedding, size: int) -> dict[str, bytes]:
    """The files that say the same of a folder whose model stands in the folder itself.

    Args:
        embedding: what they shall say.
        size: numbers of a token's vector.

    Returns:
        The contents by path, in the layout that all of the package's versions from 2 on read; none for an embedding
        that is as it would be without them.
    """
    if embedding == Embedding():
        return {}
    asked = embedding.pooling.split(SEPARATOR)
    modules = [("", "Transformer", {}, None)]
    pooling: dict[str, Any] = {name: mode in asked for name, mode in OLD_POOLINGS.items()}
    pooling |= {"word_embedding_dimension": size, "include_prompt": embedding.include_prompt}
    modules.append(("1_Pooling", "Pooling", pooling, None))
    for number, step in enumerate(embedding.steps, start=2):
        kind = {Norm: "LayerNorm"}.get(type(step), type(step).__name__)
        modules.append((f"{number}_{kind}", kind, _settings_of(step), dict(step.state_dict())))
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"{PACKAGE}models.{kind}"}
        for i, (path, kind, *_) in enumerate(modules)
    ]
    model = {
        "prompts": dict(embedding.prompts),
        "default_prompt_name": embedding.default_prompt_name,
        "similarity_fn_name": embedding.similarity,
    }
    plain: dict[str, object] = {
        MODULES: listed,
        MODEL: model,
        TRANSFORMER: {"max_seq_length": embedding.longest, "do_lower_case": False},
        **{f"{path}/{CONFIG}": said for path, _, said, _ in modules if path},
    }
    files = {name: (json.dumps(x, indent=2) + "\n").encode() for name, x in plain.items()}
    for path, _, _, tensors in modules:
        if tensors:
            files[f"{path}/{WEIGHTS}"] = safetensors.torch.save({name: x.contiguous() for name, x in tensors.items()})
    return files


def _step(path: Path, step: object) -> tuple[str, str]:
    """The kind of a step, and its folder."""
    kind, place = (step.get("type"), step.get("path")) if isinstance(step, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(place, str) or PurePosixPath(place).name != place or "\\" in place:
        raise CheckpointError(
            f'{path} has the step {show(step):.80}; expected a "type", and as "path" a folder beside it'
        )
    name = kind.rpartition(".")[2]
    known = ("Transformer", *(name for name in READ if name not in (MODEL, TRANSFORMER)))
    if not kind.startswith(PACKAGE) or name not in known:
        raise UnsupportedError(f"{path}: the step {kind} is not supported; known: {', '.join(known)}")
    return name, place


def _file_of_text(transformer: Path) -> Path:
    """The file of the step Transformer, which was once called after the model's family."""
    found = sorted(transformer.glob("sentence_*_config.json"))
    return transformer / TRANSFORMER if (transformer / TRANSFORMER).is_file() or not found else found[0]


def _read(path: Path, kind: str, inside: Callable[[Path], Path]) -> dict[str, Any]:
    """The fields of a file that are not null, all of which are known; none if there is no such file."""
    if not path.is_file():
        return {}
    said = {name: x for name, x in read_json(inside(path)).items() if x is not None}
    only = ONLY.get(kind, {})
    for name, x in said.items():
        if name in only and x not in only[name]:
            expected = " or ".join(map(repr, only[name]))
            raise UnsupportedError(f"{path}: {name}={show(x):.80} is not supported; expected {expected}")
        if name not in (*READ[kind], *only, *IRRELEVANT.get(kind, ())):
            raise UnsupportedError(
                f"{path}: {name}={show(x):.60} is no field that regard knows, and may change what is computed; "
                f"{nearest(name, [*READ[kind], *only])}. If it changes nothing, take it out of the file"
            )
    return said


def _pooling(home: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of pooling: by one field, or by one for each kind."""
    modes = said.get("pooling_mode", [mode for name, mode in OLD_POOLINGS.items() if said.get(name) is True] or "mean")
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or not all(mode in POOLINGS for mode in modes):
        raise UnsupportedError(
            f"{home}: the pooling {show(modes)} is not supported; expected some of {', '.join(POOLINGS)}"
        )
    return {"pooling": SEPARATOR.join(modes), "include_prompt": said.get("include_prompt") is not False}


def _made(home: Path, kind: str, said: Mapping[str, Any], inside: Callable[[Path], Path]) -> nn.Module:
    """A step with its tensors."""
    if kind == "Normalize":
        return Normalize()
    with open_weights(inside(need(home, WEIGHTS))) as file:
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - no dictionary
    try:
        make = partial(Norm, said["dimension"]) if kind == "LayerNorm" else _dense(home, said)
    except KeyError as error:
        raise CheckpointError(f"{home / CONFIG} lacks the field {error}") from error
    step = build_on_meta(str(home / CONFIG), make)
    try:
        step.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        message = " ".join(str(error).split())
        raise CheckpointError(f"{home / WEIGHTS} has other tensors than {CONFIG} beside it says: {message}") from error
    return step.eval()


def _dense(home: Path, said: Mapping[str, Any]) -> Callable[[], Dense]:
    """What makes a step Dense."""
    activation = str(said.get("activation_function", "torch.nn.Tanh"))
    name = activation.rpartition(".")[2]
    if not activation.startswith("torch.nn.") or name not in ACTIVATIONS:
        known = ", ".join(f"torch.nn.{name}" for name in ACTIVATIONS)
        raise UnsupportedError(
            f"{home}: activation_function={activation!r:.80} is not supported; expected one of {known}"
        )
    sizes = {size: said[size] for size in ("in_features", "out_features")}
    settings = {"bias": said.get("bias", True), "residual": said.get("use_residual", False)}
    return partial(Dense, **sizes, **settings, activation=name)


def _settings_of(step: nn.Module) -> dict[str, Any]:
    if isinstance(step, Dense):
        return {
            "in_features": step.in_features,
            "out_features": step.out_features,
            "bias": step.linear.bias is not None,
            "activation_function": f"torch.nn.modules.{_module_of(step.activation)}.{type(step.activation).__name__}",
            **({"use_residual": True} if step.use_residual else {}),
        }
    return {"dimension": step.norm.normalized_shape[0]} if isinstance(step, Norm) else {}


def _of_model(path: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """Prompts and what vectors are compared by."""
    prompts, name = said.get("prompts", {}), said.get("default_prompt_name")
    similarity = said.get("similarity_fn_name", SIMILARITIES[0])
    texts = isinstance(prompts, dict) and all(isinstance(text, str) for text in prompts.values())
    if not texts or (name is not None and name not in prompts):
        raise CheckpointError(
            f"{path}: prompts={show(prompts):.80} with default_prompt_name={show(name)}; expected texts by name, and "
            "one of the names or null"
        )
    if similarity not in SIMILARITIES:
        raise UnsupportedError(f"{path}: similarity_fn_name={show(similarity)}; expected {', '.join(SIMILARITIES)}")
    return {"prompts": prompts, "default_prompt_name": name, "similarity": similarity}


def _length_of_tokenizer(transformer: Path, inside: Callable[[Path], Path]) -> int | None:
    """How much of a text is read where the tokenizer says it, as since version 5.4."""
    path = transformer / TOKENIZER_CONFIG
    longest = read_json(inside(path)).get("model_max_length") if path.is_file() else None
    return longest if is_integer(longest) and 0 < longest < LONGEST else None


def _module_of(activation: nn.Module) -> str:
    return type(activation).__module__.rpartition(".")[2]
