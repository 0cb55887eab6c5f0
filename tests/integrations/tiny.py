"""Tiny random models of any type that `transformers` has, made from its default configurations.

Widths are divided by one number, so that sizes that must agree go on to, and heads get narrower or fewer; layers,
experts and vocabularies are cut. Not every type can be made so: a configuration may be too unlike the others, or a
model may ask for inputs that nothing here makes.
"""

import copy
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

BATCH, LENGTH, TARGET = 2, 9, 5
VOCABULARY, LAYERS, EXPERTS = 128, 2, 4
MOST_PARAMETERS = 70_000_000
FACTORS = (16, 8, 4, 1)  # of widths, tried in turn

# Fields that are widths, but for those that the second expression matches.
WIDTH = re.compile(
    r"(^|_)(hidden|dim|size|embd|embed|d|units|channels?|filters|rank|width|features?|model|inner|proj|ff|ffn)"
)
NO_WIDTH = re.compile(
    r"vocab|image|patch|window|chunk|kernel|position|max|token|_id$|block|codebook|seq|length|sampl|rate|pool|stride|"
    r"codevector|mel|crop|train|grid|scale|downsampl|upsampl|cache|context|stem|n_fft|bins|levels|temporal|num_channels|"
    r"in_channels|audio_channels|input_channels|num_|masked_unit|state_size|d_state|d_conv|query_dim"
)
DEPTH = re.compile(r"^(num_.*layers|n_layers?|layers|depth|num_blocks|.*_layers|.*_num_layers|num_hidden_layers)$")
NO_DEPTH = re.compile(
    r"feat_extract|conv|kv_shared|nextn|mtp|residual|adapter|shared|dense_layers|window_layers|add_|stop"
)
TOKEN = re.compile(
    r"(^|_)(token|bos|eos|pad|sep|cls|mask|image|video|audio)(_token)?(_start|_end)?_(id|index|ids)$|token_id$"
)
EXPERT = re.compile(r"^(num_experts|num_local_experts|n_routed_experts|moe_num_experts|num_moe_experts)$")
TOP_EXPERTS = ("num_experts_per_tok", "moe_k", "moe_topk", "num_experts_per_token")
HEAD_WIDTH = re.compile(r"head_dim|head_size|dim_head|d_head|d_kv|kv_channels|rope_head|nope_head|v_head")
HEAD_COUNT = re.compile(r"^(num_.*heads|n_heads?|.*_attention_heads|attention_heads|heads)$")
INTERVAL = re.compile(r"interval$|_period$|every_n")  # of the layers that are of another kind
GROUPS = re.compile(r"^(n_group|topk_group|num_expert_group)$")
STAGES = ("depths", "num_block_repeats", "stage_num_blocks", "stage_numb_of_layers")  # layers of each stage
NO_FIELDS = {
    "model_type", "transformers_version", "architectures", "dtype", "_name_or_path", "out_features", "out_indices",
    "_out_features", "_out_indices", "stage_names",
}  # fmt: skip
# Widths and the numbers of heads that must divide them.
HEADS = {
    "hidden_size": ("num_attention_heads", "num_heads", "attention_heads", "n_head", "n_heads"),
    "embed_dim": ("num_heads", "num_attention_heads"),
    "d_model": (
        "encoder_attention_heads", "decoder_attention_heads", "num_attention_heads", "n_heads", "n_head",
    ),
    "encoder_hidden_dim": ("encoder_attention_heads", "num_attention_heads"),
    "n_embd": ("n_head",),
    "dim": ("n_heads", "num_heads"),
}  # fmt: skip
BACKBONE = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
OWN_BACKBONE = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
# What a type needs besides.
FIELDS: dict[str, dict[str, Any]] = {
    "autoformer": {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2]},
    "bamba": {"attn_layer_indices": [1]},
    "bailing_hybrid": {"layer_group_size": 2},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "moe_topk": 2},
    "informer": {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2]},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2, "num_attention_heads": 4},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2},
    "time_series_transformer": {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2]},
    **{
        name: {**OWN_BACKBONE, "backbone_config": {**BACKBONE, "out_features": ["stage2", "stage3", "stage4"]}}
        for name in ("deformable_detr",)
    },
    **{
        name: {**OWN_BACKBONE, "backbone_config": {**BACKBONE, "out_features": ["stage4"]}}
        for name in ("detr", "conditional_detr", "dab-detr", "table-transformer")
    },
}


class Way(NamedTuple):
    """How a configuration is made small."""

    factor: int  # what widths are divided by
    few_heads: bool  # heads are divided, and not what is inside of them
    images: bool  # pictures are small, too


WAYS = [Way(factor, few, images) for factor in FACTORS for few in (False, True) for images in (True, False)]


class Tiny(NamedTuple):
    """A model that runs with an attention of the library's own."""

    kind: Any
    config: Any
    inputs: list[dict[str, Any]]  # without padding, and where there are tokens, with padding on either side
    dtype: torch.dtype


def model_types() -> list[str]:
    """Every model type of the installed version."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return sorted(CONFIG_MAPPING.keys())


def model_class(model_type: str) -> Any:
    """The class of a type: what the library's AutoModel takes, or else one in its file that has the configuration.

    Raises:
        LookupError: there is none.
    """
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    name = MODEL_MAPPING_NAMES.get(model_type)
    if name is not None:
        name = name if isinstance(name, str) else name[0]
        if not hasattr(transformers, name):
            raise LookupError(f"the library has no {name}")
        return getattr(transformers, name)
    config = CONFIG_MAPPING[model_type]
    path = config.__module__.replace(".configuration_", ".modeling_")
    try:
        file = importlib.import_module(path)
    except ImportError as error:
        raise LookupError(f"no file of models: {error}") from error
    classes = [
        kind
        for kind in vars(file).values()
        if inspect.isclass(kind)
        and issubclass(kind, transformers.PreTrainedModel)
        and kind.__module__ == file.__name__
        and getattr(kind, "config_class", None) is config
        and not kind.__name__.endswith("PreTrainedModel")
    ]
    if not classes:
        raise LookupError(f"no class of models for {config.__name__}; it is a part of others")
    return min(classes, key=lambda kind: (not kind.__name__.endswith("Model"), "For" in kind.__name__))


def tiny_config(model_type: str, way: Way) -> Any:
    """The default configuration with small sizes."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    return kind(**(_small(kind(), way, {}) | FIELDS.get(model_type, {})))


def _small(config: Any, way: Way, tokens: dict[int, int]) -> dict[str, Any]:
    """The fields of a configuration, small; `tokens` are those that were met, by their old ids."""
    plain = config.to_dict()
    staged = any(isinstance(plain.get(name), list | tuple) for name in STAGES)
    depths = {name: x for name, x in plain.items() if _is_depth(name, x) and not staged}
    chosen = _layers(plain, depths)
    fields: dict[str, Any] = {}
    for name, x in plain.items():
        if name in NO_FIELDS or x is None:
            continue
        part = vars(config).get(name)
        if hasattr(part, "to_dict") and hasattr(part, "model_type"):
            fields[name] = {**_small(part, way, tokens), "model_type": part.model_type}
        elif name in depths:
            fields[name] = len(chosen)
        elif name == "per_layer_config":
            fields[name] = {new: y for new, old in enumerate(chosen) if (y := x.get(old, x.get(str(old)))) is not None}
        elif isinstance(x, list | tuple) and depths and len(x) == max(depths.values()) and len(x) > LAYERS:
            fields[name] = [x[i] for i in chosen]
        else:
            fields[name] = _small_field(name, x, plain, way, tokens)
    _match_heads(fields)
    if "head_dim" in plain and plain["head_dim"] is None:
        width, heads = fields.get("hidden_size"), fields.get("num_attention_heads")
        if type(width) is int and type(heads) is int:
            fields["head_dim"] = width // heads
    return fields


def _match_heads(fields: dict[str, Any]) -> None:
    """Fewer heads where they do not divide a width or each other."""
    for width, names in HEADS.items():
        for name in names:
            heads = fields.get(name)
            if type(heads) is int and type(fields.get(width)) is int and not fields.get("head_dim"):
                fields[name] = max(n for n in range(1, heads + 1) if fields[width] % n == 0 and heads % n == 0)
    heads, groups = fields.get("num_attention_heads"), fields.get("num_key_value_heads")
    if type(heads) is int and type(groups) is int and heads % groups:
        fields["num_key_value_heads"] = heads


def _is_depth(name: str, x: Any) -> bool:
    return type(x) is int and x > LAYERS and bool(DEPTH.search(name)) and not NO_DEPTH.search(name)


def _layers(plain: Mapping[str, Any], depths: Mapping[str, int]) -> list[int]:
    """Which layers stay: one of each kind, where they differ, and two at least."""
    kinds = plain.get("layer_types") or plain.get("layers_block_type")
    if not kinds or len(kinds) not in depths.values():
        return list(range(LAYERS))
    first = {kind: i for i, kind in reversed(list(enumerate(kinds)))}
    return sorted({*first.values(), 0, 1})[: max(LAYERS, len(first))]


def _small_field(name: str, x: Any, plain: Mapping[str, Any], way: Way, tokens: dict[int, int]) -> Any:
    if isinstance(x, Mapping):
        return {key: _section(key, y, 1 if way.few_heads else way.factor) for key, y in x.items()}
    if isinstance(x, list | tuple) and x and all(type(y) is int for y in x) and not TOKEN.search(name):
        small = [1 if name in STAGES else _small_field(name, y, plain, way, tokens) for y in x]
        return type(x)(small)
    if type(x) is not int:
        return x
    if EXPERT.search(name):
        return min(x, EXPERTS)
    if GROUPS.search(name):
        return 1
    if name in TOP_EXPERTS or INTERVAL.search(name):
        return min(x, 2)
    if "vocab_size" in name:
        return min(x, VOCABULARY)
    if TOKEN.search(name):
        return x if x < VOCABULARY - 40 else tokens.setdefault(x, VOCABULARY - 1 - len(tokens))
    if way.images and name == "image_size":
        patch = plain.get("patch_size") or plain.get("patch_sizes") or 8
        patch = patch if isinstance(patch, int) else max(patch)
        return min(x, max(64, 8 * patch))
    if way.few_heads and (HEAD_COUNT.search(name) or HEAD_WIDTH.search(name)):
        return x if HEAD_WIDTH.search(name) else max(x // way.factor, 1)
    if x >= 48 and x % way.factor == 0 and WIDTH.search(name) and not NO_WIDTH.search(name):
        return max(x // way.factor, 4)
    return x


def _section(name: Any, x: Any, factor: int) -> Any:
    """A field of rotary positions: sections of the head, which get narrower as it does."""
    if "section" not in str(name) or not isinstance(x, list):
        return x
    if any(n % factor for n in x):
        raise LookupError(f"{name}={x} has no {factor}th part")
    return [n // factor for n in x]


def tiny(model_type: str) -> Tiny:
    """A model that is built and runs with the library's own attention.

    Raises:
        LookupError: none of the sizes and inputs here does; the first reason in words.
    """
    reasons: list[str] = []
    kind = model_class(model_type)
    for way in WAYS:
        try:
            config = tiny_config(model_type, way)
            count = parameters(kind, config)
            if count > MOST_PARAMETERS:
                raise LookupError(f"{count:,} parameters")
            model = build(kind, config, "eager")
        except Exception as error:  # noqa: BLE001 - whatever a library's code raises at an odd configuration
            reasons.append(told(error))
            continue
        for dtype in (torch.float64, torch.float32):
            for inputs in candidates(model, config, dtype):
                try:
                    run(model.to(dtype), inputs)
                except Exception as error:  # noqa: BLE001 - likewise
                    reasons.append(told(error))
                    continue
                return Tiny(kind, config, [inputs, *masked(inputs)], dtype)
    error = LookupError(reasons[0] if reasons else "no inputs that it takes")
    error.add_note("\n".join(dict.fromkeys(reasons)))
    raise error


def told(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def parameters(kind: Any, config: Any) -> int:
    """How many numbers a model would have; none is made."""
    with torch.device("meta"):
        model = kind._from_config(copy.deepcopy(config), attn_implementation="eager")
    return sum(x.numel() for x in model.parameters())


def build(kind: Any, config: Any, attention: str) -> Any:
    """A model in evaluation, with the same weights each time, none of which is 0."""
    torch.manual_seed(0)
    # The other ways to compute experts take no float64.
    model = kind._from_config(copy.deepcopy(config), attn_implementation=attention, experts_implementation="eager")
    with torch.no_grad():
        for x in model.parameters():
            if x.is_floating_point():
                x.nan_to_num_(0.0).add_(0.05 * torch.randn_like(x))
    return model.eval()


@torch.no_grad()
def run(model: Any, inputs: Mapping[str, Any]) -> list[Tensor]:
    """All float tensors that a model gives, in their order.

    Raises:
        LookupError: there is none, or one without a finite number.
    """
    torch.manual_seed(2)  # some draw their masks
    found = list(_floats(model(**inputs)))
    if not found or not all(bool(x.isfinite().any()) for x in found if x.numel()):
        raise LookupError("nothing finite comes out")
    return found


def _floats(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        if x.is_floating_point():
            yield x
    elif isinstance(x, Mapping):
        for y in x.values():
            yield from _floats(y)
    elif isinstance(x, list | tuple):
        for y in x:
            yield from _floats(y)


def candidates(model: Any, config: Any, dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    """Inputs that a model may take, likely ones first."""
    asked = inspect.signature(model.forward).parameters
    torch.manual_seed(1)

    def only(*names: str, **known: Tensor) -> dict[str, Any]:
        """Those that it takes, of the ones named, and all that it must have."""
        needed = [name for name, x in asked.items() if x.default is x.empty and x.kind is x.POSITIONAL_OR_KEYWORD]
        return {name: x for name, x in known.items() if name in asked and (name in names or name in needed)}

    known = _known(config, dtype)
    main = getattr(model, "main_input_name", "input_ids")
    tokens, pairs = ("input_ids",), ("input_ids", "decoder_input_ids")
    for names in (
        (main, *pairs) if main in known else pairs,
        pairs,
        ("input_ids", "pixel_values", "attention_mask"),
        ("pixel_values",),
        ("pixel_values_videos",),
        ("input_ids", "bbox"),
        ("query_embeds", "encoder_hidden_states"),
        ("inputs_embeds",),
        ("hidden_states",),
        tokens,
        (*known,),
    ):
        yield from ([x] if (x := only(*names, **known)) else [])
    for name, shapes in _waves(config).items():
        for shape in shapes if name in asked else ():
            yield only(name, "decoder_input_ids", **(known | {name: torch.randn(shape, dtype=dtype)}))
    side, channels = _picture(config)
    for steps in (1, 2) if "grid_thw" in asked else ():  # patches of pictures of 4 x 4
        patch = number(config, "patch_size") or 16
        x = torch.randn(BATCH * 16, channels * steps * patch * patch, dtype=dtype)
        for name in ("hidden_states", "pixel_values"):
            yield only(name, **(known | {name: x}))
    frames = number(config, "num_frames") or 4
    clip = torch.randn(BATCH, frames, channels, side, side, dtype=dtype)
    two = torch.randn(BATCH, 2, channels, side, side, dtype=dtype)
    for name in ("pixel_values", "pixel_values_videos"):
        for x in (clip, two) if name in asked else ():
            yield only(name, **(known | {name: x}))
            yield only(name, *pairs, **(known | {name: x}))


def _known(config: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    """Inputs by the names that models give them."""
    side, channels = _picture(config)
    width = number(config, "hidden_size", "d_model", "embed_dim", "encoder_hidden_size") or 64
    states, most = (BATCH, LENGTH, width), min(80, number(config, "vocab_size") or 80)
    grid = torch.tensor([[1, 4, 4]] * BATCH)
    return {
        "attention_mask": torch.ones(BATCH, LENGTH, dtype=torch.int64),
        "bbox": torch.arange(4).expand(BATCH, LENGTH, 4),
        "context": torch.randn(states, dtype=dtype),
        "decoder_input_ids": torch.randint(3, most, (BATCH, TARGET)),
        "encoder_hidden_states": torch.randn(states, dtype=dtype),
        "grid_thw": grid,
        "hidden_states": torch.randn(states, dtype=dtype),
        "image_grid_thw": grid,
        "input_features_mask": torch.ones(BATCH, 64, dtype=torch.bool),
        "input_ids": torch.randint(3, most, (BATCH, LENGTH)),
        "inputs_embeds": torch.randn(states, dtype=dtype),
        "pixel_values": torch.randn(BATCH, channels, side, side, dtype=dtype),
        "qformer_input_ids": torch.randint(3, 80, (BATCH, LENGTH)),
        "query_embeds": torch.randn(states, dtype=dtype),
        "visual_feats": torch.randn(BATCH, 3, number(config, "visual_feat_dim") or 2048, dtype=dtype),
        "visual_pos": torch.rand(BATCH, 3, 4, dtype=dtype),
    }


def _waves(config: Any) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of sound and of its spectra."""
    bins = number(
        config, "num_mel_bins", "feature_size", "input_feat_per_channel", "feature_projection_input_dim", "input_dim"
    )
    bins, long = bins or 80, 2 * (number(config, "max_source_positions") or 64)
    spectra: list[tuple[int, ...]] = [
        (BATCH, bins, long), (BATCH, 64, bins), (BATCH, number(config, "max_length") or 128, bins),
        (BATCH, 1, number(config, "max_length") or 128, bins),
    ]  # fmt: skip
    return {"input_features": spectra, "input_values": [(BATCH, 4000), (BATCH, 1, 4000), *spectra]}


def _picture(config: Any) -> tuple[int, int]:
    """The side and the channels of the pictures that a model takes."""
    return number(config, "image_size") or 64, number(config, "num_channels", "in_channels") or 3


def number(config: Any, *names: str) -> Any:
    """The first whole number among some fields of the configuration, or of one inside it; the largest of a list."""
    for name in names:
        x = vars(config).get(name)
        if type(x) is int:
            return x
        if isinstance(x, list | tuple) and x and all(type(y) is int for y in x):
            return max(x)
    parts = [vars(config).get(part) for part in getattr(config, "sub_configs", {})]
    found = (number(part, *names) for part in parts if part is not None)
    return next((x for x in found if x is not None), None)


def masked(inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same inputs with padding at the right, and at the left."""
    if "input_ids" not in inputs:
        return []
    right = torch.ones(BATCH, LENGTH, dtype=torch.int64)
    right[1, LENGTH - 4 :] = 0
    return [{**inputs, "attention_mask": mask} for mask in (right, right.flip(1))]
