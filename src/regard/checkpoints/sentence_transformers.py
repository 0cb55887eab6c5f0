"""Folders of the sentence-transformers package, which compute text embeddings.

    modules.json                            the modules from a text to its embedding, each with class and folder
    config_sentence_transformers.json       prompts and similarity
    sentence_bert_config.json               of the module Transformer: maximum length and lower case
    1_Pooling/config.json                   and so on: settings of a module, and its tensors if it has some

Versions 2 to 6 of the package are supported. Every field is read, or refused by name unless it changes nothing.

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
from regard.checkpoints.folder import CONFIG, WEIGHTS, open_weights, read_json, require_file
from regard.errors import CheckpointError, UnsupportedError, nearest
from regard.models.pooling import POOLINGS, SEPARATOR, Embedding
from regard.models.published import build_on_meta

MODULES = "modules.json"
MODEL = "config_sentence_transformers.json"
TRANSFORMER = "sentence_bert_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
PACKAGE = "sentence_transformers."  # prefix of the modules' classes
VECTOR = "sentence_embedding"  # name of the text embedding between modules
# Fields of poolings up to version 5.3, in the order in which their vectors are concatenated.
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
    cls.__name__: cls for cls in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid)
}
TEXT_ALONE = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
OTHER_ARGUMENTS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
# By file or class: fields that are read, and supported values of fields of which others are refused.
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
SUPPORTED: dict[str, dict[str, tuple[Any, ...]]] = {
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
UNLIMITED = 10**9  # a maximum length from here on means that there is none


class Layout(NamedTuple):
    """Contents of a sentence-transformers folder.

    Args:
        transformer: folder of the encoder and its tokenizer.
        embedding: how token vectors become text embeddings.
        lowercase: whether texts are converted to lower case.
    """

    transformer: Path
    embedding: Embedding
    lowercase: bool


@final
class Dense(nn.Module):
    """A linear layer with activation, and optionally a residual connection.

    Args:
        in_features: size of input vectors.
        out_features: size of output vectors.
        bias: whether the linear layer has a bias.
        activation: name of a class of torch.nn.
        residual: whether the input, projected if sizes differ, is added to the output.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool, activation: str, residual: bool) -> None:
        super().__init__()
        self.in_features, self.out_features, self.use_residual = in_features, out_features, residual
        self.linear = nn.Linear(in_features, out_features, bias)
        self.activation = ACTIVATIONS[activation]()
        if residual and in_features != out_features:
            self.residual = nn.Linear(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map vectors (B, in_features) to (B, out_features)."""
        output: Tensor = self.activation(self.linear(x))
        if not self.use_residual:
            return output
        return output + (self.residual(x) if hasattr(self, "residual") else x)


@final
class Norm(nn.Module):
    """Layer normalization, with the tensor names of the package.

    Args:
        dimension: size of the vectors.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize vectors (B, D)."""
        output: Tensor = self.norm(x)
        return output


@final
class Normalize(nn.Module):
    """Scaling of vectors to Euclidean norm 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Scale vectors (B, D)."""
        return functional.normalize(x, dim=-1)


def read_layout(folder: Path, inside: Callable[[Path], Path]) -> Layout | None:
    """Read a sentence-transformers folder.

    Args:
        folder: the folder.
        inside: returns a path if it is inside of the folder, else raises CheckpointError.

    Returns:
        The layout, or None if there is no modules.json.

    Raises:
        CheckpointError: files that are missing or damaged.
        UnsupportedError: a module, or a field with a value, that is not supported.
    """
    if not (folder / MODULES).is_file():
        return None
    path = inside(folder / MODULES)
    steps = [_step(path, step) for step in read_json(path, list)]
    kinds = [kind for kind, _ in steps]
    if kinds[:1] != ["Transformer"] or kinds[1:2] not in ([], ["Pooling"]) or {"Transformer", "Pooling"} & {*kinds[2:]}:
        raise UnsupportedError(
            f"{path}: the modules {', '.join(kinds) or 'none'} are not supported; expected Transformer, Pooling, and "
            "then others"
        )
    transformer = folder / steps[0][1]
    model_fields = _read(folder / MODEL, MODEL, inside)
    text_fields = _read(_transformer_config(transformer), TRANSFORMER, inside)
    pooling: dict[str, Any] = {}
    modules: list[nn.Module] = []  # after pooling
    for kind, subfolder in steps[1:]:
        fields = _read(folder / subfolder / CONFIG, kind, inside)
        if kind == "Pooling":
            pooling = _pooling(folder / subfolder, fields)
        elif kind != "Dropout":
            modules.append(_load_step(folder / subfolder, kind, fields, inside))
    max_length = text_fields.get("max_seq_length") or _tokenizer_max_length(transformer, inside)
    if max_length is not None and not (is_integer(max_length) and max_length > 0):
        raise CheckpointError(f"{transformer}: max_seq_length={show(max_length)}; expected a number of tokens above 0")
    prompts = _prompts(folder / MODEL, model_fields)
    embedding = Embedding(**pooling, **prompts, max_length=max_length, steps=tuple(modules))
    return Layout(transformer, embedding, text_fields.get("do_lower_case") is True)


def layout_files(embedding: Embedding, size: int) -> dict[str, bytes]:
    """The files of a sentence-transformers folder whose encoder is in the folder itself.

    Args:
        embedding: that the files describe.
        size: of token vectors.

    Returns:
        Contents by path, readable by versions 2 and later of the package; empty for the default embedding.
    """
    if embedding == Embedding():
        return {}
    poolings = embedding.pooling.split(SEPARATOR)
    modules = [("", "Transformer", {}, None)]
    pooling: dict[str, Any] = {name: mode in poolings for name, mode in OLD_POOLINGS.items()}
    pooling |= {"word_embedding_dimension": size, "include_prompt": embedding.include_prompt}
    modules.append(("1_Pooling", "Pooling", pooling, None))
    for number, step in enumerate(embedding.steps, start=2):
        kind = {Norm: "LayerNorm"}.get(type(step), type(step).__name__)
        modules.append((f"{number}_{kind}", kind, _step_fields(step), dict(step.state_dict())))
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
        TRANSFORMER: {"max_seq_length": embedding.max_length, "do_lower_case": False},
        **{f"{path}/{CONFIG}": fields for path, _, fields, _ in modules if path},
    }
    files = {name: (json.dumps(x, indent=2) + "\n").encode() for name, x in plain.items()}
    for path, _, _, tensors in modules:
        if tensors:
            files[f"{path}/{WEIGHTS}"] = safetensors.torch.save({name: x.contiguous() for name, x in tensors.items()})
    return files


def _step(path: Path, step: object) -> tuple[str, str]:
    """The class of a module and its folder, from an item of modules.json."""
    kind, subfolder = (step.get("type"), step.get("path")) if isinstance(step, dict) else (None, None)
    is_name = isinstance(subfolder, str) and PurePosixPath(subfolder).name == subfolder and "\\" not in subfolder
    if not isinstance(kind, str) or not is_name:
        raise CheckpointError(
            f'{path} has the module {show(step):.80}; expected a "type", and as "path" a folder beside the file'
        )
    name = kind.rpartition(".")[2]
    known = ("Transformer", *(name for name in READ if name not in (MODEL, TRANSFORMER)))
    if not kind.startswith(PACKAGE) or name not in known:
        raise UnsupportedError(f"{path}: the module {kind} is not supported; expected one of {', '.join(known)}")
    return name, subfolder


def _transformer_config(transformer: Path) -> Path:
    """The configuration file of the module Transformer, whose name once contained the model's family."""
    paths = sorted(transformer.glob("sentence_*_config.json"))
    return transformer / TRANSFORMER if (transformer / TRANSFORMER).is_file() or not paths else paths[0]


def _read(path: Path, kind: str, inside: Callable[[Path], Path]) -> dict[str, Any]:
    """The fields of a file that are not null; empty without the file. Raises UnsupportedError for unknown fields."""
    if not path.is_file():
        return {}
    fields = {name: x for name, x in read_json(inside(path)).items() if x is not None}
    supported = SUPPORTED.get(kind, {})
    for name, x in fields.items():
        if name in supported and x not in supported[name]:
            expected = " or ".join(map(repr, supported[name]))
            raise UnsupportedError(f"{path}: {name}={show(x):.80} is not supported; expected {expected}")
        if name not in (*READ[kind], *supported, *IRRELEVANT.get(kind, ())):
            raise UnsupportedError(
                f"{path}: unknown field {name}={show(x):.60}, which may change what is computed; "
                f"{nearest(name, [*READ[kind], *supported])}. If it changes nothing, remove it from the file"
            )
    return fields


def _pooling(folder: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The pooling's arguments of `Embedding`, from one field or from one for each kind of pooling."""
    old_modes = [mode for name, mode in OLD_POOLINGS.items() if fields.get(name) is True]
    modes = fields.get("pooling_mode", old_modes or "mean")
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or not all(mode in POOLINGS for mode in modes):
        raise UnsupportedError(
            f"{folder}: the pooling {show(modes)} is not supported; expected some of {', '.join(POOLINGS)}"
        )
    return {"pooling": SEPARATOR.join(modes), "include_prompt": fields.get("include_prompt") is not False}


def _load_step(folder: Path, kind: str, fields: Mapping[str, Any], inside: Callable[[Path], Path]) -> nn.Module:
    """A module after pooling, with its tensors."""
    if kind == "Normalize":
        return Normalize()
    with open_weights(inside(require_file(folder, WEIGHTS))) as file:
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dictionary
    try:
        build = partial(Norm, fields["dimension"]) if kind == "LayerNorm" else _dense(folder, fields)
    except KeyError as error:
        raise CheckpointError(f"{folder / CONFIG} lacks the field {error}") from error
    step = build_on_meta(str(folder / CONFIG), build)
    try:
        step.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        message = " ".join(str(error).split())
        raise CheckpointError(f"{folder / WEIGHTS} does not match {CONFIG} beside it: {message}") from error
    return step.eval()


def _dense(folder: Path, fields: Mapping[str, Any]) -> Callable[[], Dense]:
    """A function that builds the Dense module of these fields."""
    activation = str(fields.get("activation_function", "torch.nn.Tanh"))
    name = activation.rpartition(".")[2]
    if not activation.startswith("torch.nn.") or name not in ACTIVATIONS:
        known = ", ".join(f"torch.nn.{name}" for name in ACTIVATIONS)
        raise UnsupportedError(
            f"{folder}: activation_function={activation!r:.80} is not supported; expected one of {known}"
        )
    sizes = {size: fields[size] for size in ("in_features", "out_features")}
    options = {"bias": fields.get("bias", True), "residual": fields.get("use_residual", False)}
    return partial(Dense, **sizes, **options, activation=name)


def _step_fields(step: nn.Module) -> dict[str, Any]:
    """The fields of a module's config.json."""
    if isinstance(step, Dense):
        return {
            "in_features": step.in_features,
            "out_features": step.out_features,
            "bias": step.linear.bias is not None,
            "activation_function": f"torch.nn.modules.{_module_of(step.activation)}.{type(step.activation).__name__}",
            **({"use_residual": True} if step.use_residual else {}),
        }
    return {"dimension": step.norm.normalized_shape[0]} if isinstance(step, Norm) else {}


def _prompts(path: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Embedding` for prompts and similarity."""
    prompts, name = fields.get("prompts", {}), fields.get("default_prompt_name")
    similarity = fields.get("similarity_fn_name", SIMILARITIES[0])
    are_texts = isinstance(prompts, dict) and all(isinstance(text, str) for text in prompts.values())
    if not are_texts or (name is not None and name not in prompts):
        raise CheckpointError(
            f"{path}: prompts={show(prompts):.80} with default_prompt_name={show(name)}; expected texts by name, and "
            "one of these names or null"
        )
    if similarity not in SIMILARITIES:
        raise UnsupportedError(f"{path}: similarity_fn_name={show(similarity)}; expected {', '.join(SIMILARITIES)}")
    return {"prompts": prompts, "default_prompt_name": name, "similarity": similarity}


def _tokenizer_max_length(transformer: Path, inside: Callable[[Path], Path]) -> int | None:
    """The maximum length in tokenizer_config.json, where versions 5.4 and later have it."""
    path = transformer / TOKENIZER_CONFIG
    max_length = read_json(inside(path)).get("model_max_length") if path.is_file() else None
    return max_length if is_integer(max_length) and 0 < max_length < UNLIMITED else None


def _module_of(activation: nn.Module) -> str:
    return type(activation).__module__.rpartition(".")[2]
