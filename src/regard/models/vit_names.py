"""Checkpoints of ViT, DeiT and DINOv2: config.json's fields and the names of tensors, and back."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from regard.attention.check import is_integer, show
from regard.errors import CheckpointError, UnsupportedError
from regard.models.published import (
    COMMON_IRRELEVANT,
    COMMON_ONLY,
    HEADS,
    RETURNED,
    TRAINING,
    ConfigFields,
    RenamedTensors,
    TensorName,
    activation_of,
    check_supported,
    export_tensors,
    load_tensors,
    published_activation,
    weight_and_bias,
)
from regard.models.vit import ViT, ViTConfig

COMMON = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "num_channels": "num_channels",
    "hidden_size": "embed_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "layer_norm_eps": "norm_eps",
    "qkv_bias": "query_bias",
}
VIT_READ = (*COMMON, "model_type", "hidden_act", "intermediate_size", "pooler_output_size")
DINO_READ = (*COMMON, "model_type", "hidden_act", "mlp_ratio", "use_swiglu_ffn", "layerscale_value")
DINO_ONLY: dict[str, tuple[Any, ...]] = {**COMMON_ONLY, "is_encoder_decoder": (False, None)}
SUPPORTED: dict[str, tuple[Any, ...]] = {**DINO_ONLY, "pooler_act": ("tanh", None)}
IRRELEVANT = {**COMMON_IRRELEVANT, "encoder_stride": HEADS}
DINO_IRRELEVANT = {
    **COMMON_IRRELEVANT,
    "drop_path_rate": TRAINING,
    "use_mask_token": TRAINING,
    **dict.fromkeys(
        ("apply_layernorm", "out_features", "out_indices", "reshape_hidden_states", "stage_names"), RETURNED
    ),
}
FIELDS = {
    "vit": ConfigFields("ViT", VIT_READ, SUPPORTED, IRRELEVANT),
    "deit": ConfigFields("DeiT", VIT_READ, SUPPORTED, IRRELEVANT),
    "dinov2": ConfigFields("Dinov2", DINO_READ, DINO_ONLY, DINO_IRRELEVANT),
    "dinov2_with_registers": ConfigFields(
        "Dinov2WithRegisters", (*DINO_READ, "num_register_tokens"), DINO_ONLY, DINO_IRRELEVANT
    ),
}
DINO = ("dinov2", "dinov2_with_registers")
# The families' own defaults where they are not those of ViTConfig, by published field.
DEFAULTS: dict[str, dict[str, Any]] = {
    "vit": {"layer_norm_eps": 1e-12, "patch_size": 16},
    "deit": {"layer_norm_eps": 1e-12, "patch_size": 16},
    "dinov2": {"layer_norm_eps": 1e-6, "patch_size": 14},
    "dinov2_with_registers": {"layer_norm_eps": 1e-6, "patch_size": 16, "num_register_tokens": 4},
}
ATTENTION = {
    "self_attention.query_proj": "attention.attention.query",
    "self_attention.key_proj": "attention.attention.key",
    "self_attention.value_proj": "attention.attention.value",
    "self_attention.output_proj": "attention.output.dense",
}
VIT_LAYER = {
    **ATTENTION,
    "around_self.norm": "layernorm_before",
    "feed_forward.expand": "intermediate.dense",
    "feed_forward.contract": "output.dense",
    "around_feed_forward.norm": "layernorm_after",
}
DINO_LAYER = {**ATTENTION, "around_self.norm": "norm1", "around_feed_forward.norm": "norm2"}
DINO_FEED_FORWARD = {"feed_forward.expand": "mlp.fc1", "feed_forward.contract": "mlp.fc2"}
# Names that the transformers package gives tensors in memory, since version 5, and those of its files.
IN_MEMORY = (
    (r"^layers\.", "encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
)
VIT_IN_MEMORY = ((r"\.mlp\.fc1\.", ".intermediate.dense."), (r"\.mlp\.fc2\.", ".output.dense."))
IGNORED = ("embeddings.mask_token", "decoder.*")  # of training with masked patches


def from_vit(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> ViT:
    """The model of a published configuration and its tensors.

    A classifier and a pooler are there if their tensors are.

    Args:
        config: the fields of config.json; `model_type` says the family, ViT by default.
        state: the tensors by name.

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError: a setting that this model does not support.
        CheckpointError: tensors that are missing, unknown, or of other shapes.
    """
    family = config.get("model_type", "vit")
    title, dino = FIELDS[family].title, family in DINO
    check_supported(title, config, FIELDS[family].supported)
    config = {**DEFAULTS[family], **{name: x for name, x in config.items() if x is not None}}
    given = {ours: config[theirs] for theirs, ours in COMMON.items() if theirs in config}
    for name in ("image_size", "patch_size"):
        if name in given:
            given[name] = _side(title, name, given[name])
    if "hidden_act" in config:
        given["activation"] = activation_of(title, config, "hidden_act")
    state = RenamedTensors(state, lambda name: _renamed(name, family))
    embed_dim = given.get("embed_dim", ViTConfig.embed_dim)
    if not dino:
        given["ffn_dim"] = config.get("intermediate_size", ViTConfig.ffn_dim)
        if config.get("pooler_output_size", embed_dim) != embed_dim and "pooler.dense.weight" in state:
            raise UnsupportedError(
                f"{title}: pooler_output_size={show(config['pooler_output_size'])} is not supported; expected "
                f"hidden_size={embed_dim}"
            )
    else:
        gated = config.get("use_swiglu_ffn", False)
        given |= {"ffn_dim": _ffn_dim(embed_dim, config.get("mlp_ratio", 4), gated), "gated": gated}
        given["layer_scale"] = config.get("layerscale_value", 1.0)
        if gated:
            given["activation"] = "swish"
        if family == "dinov2_with_registers":
            given["num_registers"] = config["num_register_tokens"] or None
    both = "cls_classifier.weight" in state
    head = "cls_classifier.weight" if both else "classifier.weight"
    made = ViTConfig(
        **given,
        family=family,
        distilled=family == "deit",
        num_labels=state[head].shape[0] if head in state else None,
        head="both" if both else "class-mean" if dino else "class",
        pooler="pooler.dense.weight" in state,
    )
    apart = any(".mlp.gate_proj." in name for name in state)
    return load_tensors(title, lambda: ViT(made), state, _names(made, apart), ignored=IGNORED)


def to_vit(model: ViT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A model's configuration and tensors as its family publishes them.

    Args:
        model: the model.

    Returns:
        ConfigFields of config.json, and tensors by name.

    Raises:
        UnsupportedError: what the family's checkpoints cannot say.
    """
    config = model.config
    title, dino = FIELDS[config.family].title, config.family in DINO
    limits: dict[str, tuple[Any, ...]] = {
        "positions": ("1d",),
        "stem": ("patch",),
        "distilled": (config.family == "deit",),
        "head": ("class-mean",) if dino else ("class", "both") if config.distilled else ("class",),
    }
    if config.num_labels is None:
        limits.pop("head")
    if dino:
        limits["pooler"] = (False,)
        if config.gated:
            limits["activation"] = ("swish",)
    else:
        limits |= {"gated": (False,), "layer_scale": (None,)}
    if config.family != "dinov2_with_registers":
        limits["num_registers"] = (None,)
    for name, only in limits.items():
        if getattr(config, name) not in only:
            raise UnsupportedError(f"{title} has no {name}={getattr(config, name)!r}; expected {only[0]!r}")
    fields = {theirs: getattr(config, ours) for theirs, ours in COMMON.items()}
    kind = "Model"
    if config.num_labels is not None:
        kind = "ForImageClassification" + ("WithTeacher" if config.head == "both" else "")
    fields |= {
        "model_type": config.family,
        "architectures": [f"{title}{kind}"],
        "hidden_act": "gelu" if config.gated else published_activation(config.activation),
    }
    if dino:
        fields |= {"mlp_ratio": _ratio(title, config), "use_swiglu_ffn": config.gated}
        fields["layerscale_value"] = 1.0 if config.layer_scale is None else config.layer_scale
        if config.layer_scale is None:
            raise UnsupportedError(f"{title} has no layer_scale=None; expected a number such as 1.0")
    else:
        fields["intermediate_size"] = config.ffn_dim
    if config.family == "dinov2_with_registers":
        fields["num_register_tokens"] = config.num_registers or 0
    state = export_tensors(model, _names(config, apart=False))
    if config.num_labels is not None:
        prefix = f"{config.family}."
        state = {name if "classifier" in name else prefix + name: x for name, x in state.items()}
    return fields, state


def _names(config: ViTConfig, apart: bool) -> Iterator[TensorName]:
    """Our name and theirs of every tensor; `apart` is whether both maps of a gated network are tensors of their own."""
    yield TensorName("class_token", "embeddings.cls_token")
    if config.distilled:
        yield TensorName("distillation_token", "embeddings.distillation_token")
    if config.num_registers is not None:
        yield TensorName("registers", "embeddings.register_tokens")
    yield TensorName("positions", "embeddings.position_embeddings")
    yield from weight_and_bias("patch_embedding", "embeddings.patch_embeddings.projection")
    for i in range(config.num_layers):
        yield from _layer_names(config, f"encoder.{i}", f"encoder.layer.{i}", apart)
    yield from weight_and_bias("norm", "layernorm")
    if config.pooler:
        yield from weight_and_bias("pooler", "pooler.dense")
    if config.num_labels is not None:
        yield from weight_and_bias("classifier", "cls_classifier" if config.head == "both" else "classifier")
        if config.head == "both":
            yield from weight_and_bias("distillation_classifier", "distillation_classifier")


def _layer_names(config: ViTConfig, ours: str, theirs: str, apart: bool) -> Iterator[TensorName]:
    dino = config.family in DINO
    table = {**DINO_LAYER, **({} if config.gated else DINO_FEED_FORWARD)} if dino else VIT_LAYER
    unbiased = () if config.query_bias else ("query_proj", "key_proj", "value_proj")
    for mine, other in table.items():
        yield TensorName(f"{ours}.{mine}.weight", f"{theirs}.{other}.weight")
        if not mine.endswith(unbiased):
            yield TensorName(f"{ours}.{mine}.bias", f"{theirs}.{other}.bias")
    if dino and config.gated:
        contract = "mlp.down_proj" if apart else "mlp.weights_out"
        yield from weight_and_bias(f"{ours}.feed_forward.contract", f"{theirs}.{contract}")
        for part, mine in enumerate(("gate", "expand")):
            if apart:
                separate = ("gate_proj", "up_proj")[part]
                yield from weight_and_bias(f"{ours}.feed_forward.{mine}", f"{theirs}.mlp.{separate}")
                continue
            for name in weight_and_bias(f"{ours}.feed_forward.{mine}", f"{theirs}.mlp.weights_in"):
                yield name._replace(part=part, parts=2)
    if dino and config.layer_scale is not None:
        yield TensorName(f"{ours}.around_self.scale", f"{theirs}.layer_scale1.lambda1")
        yield TensorName(f"{ours}.around_feed_forward.scale", f"{theirs}.layer_scale2.lambda1")


def _renamed(name: str, family: str) -> str:
    """A tensor's name without the prefix, as files have it."""
    name = name.removeprefix(f"{family}.")
    for pattern, new in (*IN_MEMORY, *(() if family in DINO else VIT_IN_MEMORY)):
        name = re.sub(pattern, new, name)
    return name


def _side(title: str, name: str, x: Any) -> int:
    """Side of a square, given as one number or as two equal ones."""
    sides = list(x) if isinstance(x, list | tuple) else [x]
    if not all(map(is_integer, sides)) or len(sides) not in (1, 2):
        raise CheckpointError(f"{title}: {name}={show(x)}; expected a number of pixels")
    if len(set(sides)) != 1:
        raise UnsupportedError(f"{title}: {name}={show(x)} is not supported; expected equal sides")
    side: int = sides[0]
    return side


def _ffn_dim(embed_dim: int, ratio: float, gated: bool) -> int:
    size = int(embed_dim * ratio)
    return (int(size * 2 / 3) + 7) // 8 * 8 if gated else size


def _ratio(title: str, config: ViTConfig) -> int:
    """The `mlp_ratio` that gives the feed-forward size."""
    for ratio in range(1, 17):
        if _ffn_dim(config.embed_dim, ratio, config.gated) == config.ffn_dim:
            return ratio
    raise UnsupportedError(
        f"{title} has no ffn_dim={config.ffn_dim} with embed_dim={config.embed_dim}"
        f"{' and gated=True' if config.gated else ''}; expected that of a whole mlp_ratio, such as "
        f"{_ffn_dim(config.embed_dim, 4, config.gated)}"
    )
