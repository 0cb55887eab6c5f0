"""Conversion between Bert models and BERT, DistilBERT and RoBERTa checkpoints: fields and tensor names."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from regard.errors import UnsupportedError
from regard.models.bert import Bert, BertConfig
from regard.models.published import (
    COMMON_IRRELEVANT,
    COMMON_ONLY,
    HEADS,
    TOKENS,
    TRAINING,
    ConfigFields,
    RenamedTensors,
    TensorName,
    activation_of,
    check_supported,
    export_tensors,
    load_tensors,
    published_activation,
)

# Supported values of fields of which others are refused.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    **COMMON_ONLY,
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "position_embedding_type": ("absolute", None),
}
IRRELEVANT = {
    **COMMON_IRRELEVANT,
    **dict.fromkeys(("bos_token_id", "eos_token_id", "mask_token_id", "cls_token_id", "unk_token_id"), TOKENS),
    **dict.fromkeys(
        (
            "classifier_dropout", "directionality", "pooler_fc_size", "pooler_num_attention_heads",
            "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "sbert_ce_default_activation_function",
            "sentence_transformers",
        ),
        HEADS,
    ),
    **dict.fromkeys(("cell", "emb_size", "pre_trained", "structure", "training"), TRAINING),  # TinyBERT's
    "cross_attention_hidden_size": "decoders only",
    "task_specific_params": "generation only",
}  # fmt: skip
DISTILBERT_IRRELEVANT = {
    **IRRELEVANT,
    **dict.fromkeys(("qa_dropout", "seq_classif_dropout"), HEADS),
    "sinusoidal_pos_embds": "positions: read from their tensor",
    "tie_weights_": TRAINING,
}
BERT_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "embed_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "ffn_dim",
    "hidden_act": "activation",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "max_position_embeddings": "max_positions",
    "type_vocab_size": "num_token_types",
    "layer_norm_eps": "norm_eps",
    "pad_token_id": "pad",
    "tie_word_embeddings": "tied",
}
DISTILBERT_FIELDS = {
    "vocab_size": "vocab_size",
    "dim": "embed_dim",
    "n_layers": "num_layers",
    "n_heads": "num_heads",
    "hidden_dim": "ffn_dim",
    "activation": "activation",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "max_position_embeddings": "max_positions",
    "pad_token_id": "pad",
    "tie_word_embeddings": "tied",
}
ACTIVATION_FIELDS = ("hidden_act", "activation")
BERT_LAYER = {
    "self_attention.query_proj": "attention.self.query",
    "self_attention.key_proj": "attention.self.key",
    "self_attention.value_proj": "attention.self.value",
    "self_attention.output_proj": "attention.output.dense",
    "around_self.norm": "attention.output.LayerNorm",
    "feed_forward.expand": "intermediate.dense",
    "feed_forward.contract": "output.dense",
    "around_feed_forward.norm": "output.LayerNorm",
}
DISTILBERT_LAYER = {
    "self_attention.query_proj": "attention.q_lin",
    "self_attention.key_proj": "attention.k_lin",
    "self_attention.value_proj": "attention.v_lin",
    "self_attention.output_proj": "attention.out_lin",
    "around_self.norm": "sa_layer_norm",
    "feed_forward.expand": "ffn.lin1",
    "feed_forward.contract": "ffn.lin2",
    "around_feed_forward.norm": "output_layer_norm",
}


class FamilyNames(NamedTuple):
    """Names of a family's configuration fields and tensors."""

    title: str  # in messages, and in the names of the transformers package's classes
    prefix: str  # of the encoder's tensors, in checkpoints with a head
    fields: dict[str, str]  # config.json: BertConfig
    layers: str  # prefix of layers
    layer: dict[str, str]  # tensors of a layer, regard's name: checkpoint's name
    head: dict[str, str]  # tensors of the head, likewise
    decoder: str  # the head's linear map to logits
    bias: str  # the bias of logits, in older checkpoints
    heads: tuple[str, ...]  # prefixes of the head's tensors


BERT_HEAD = {"head.dense": "cls.predictions.transform.dense", "head.norm": "cls.predictions.transform.LayerNorm"}
ROBERTA_HEAD = {"head.dense": "lm_head.dense", "head.norm": "lm_head.layer_norm"}
DISTILBERT_HEAD = {"head.dense": "vocab_transform", "head.norm": "vocab_layer_norm"}
BERT_PARTS = ("encoder.layer", BERT_LAYER)
ROBERTA_REST = ("roberta.", BERT_FIELDS, *BERT_PARTS, ROBERTA_HEAD, "lm_head.decoder", "lm_head.bias", ("lm_head.",))
FAMILIES = {
    "bert": FamilyNames(
        "Bert", "bert.", BERT_FIELDS, *BERT_PARTS, BERT_HEAD, "cls.predictions.decoder", "cls.predictions.bias",
        ("cls.",),
    ),
    "roberta": FamilyNames("Roberta", *ROBERTA_REST),
    "xlm-roberta": FamilyNames("XLMRoberta", *ROBERTA_REST),
    "distilbert": FamilyNames(
        "DistilBert", "distilbert.", DISTILBERT_FIELDS, "transformer.layer", DISTILBERT_LAYER, DISTILBERT_HEAD,
        "vocab_projector", "vocab_projector.bias", ("vocab_",),
    ),
}  # fmt: skip
CONFIG_FIELDS = {
    **{
        family: ConfigFields(FAMILIES[family].title, (*BERT_FIELDS, "model_type"), SUPPORTED, IRRELEVANT)
        for family in ("bert", "roberta", "xlm-roberta")
    },
    "distilbert": ConfigFields(
        FAMILIES["distilbert"].title,
        (*DISTILBERT_FIELDS, "model_type"),
        SUPPORTED,
        DISTILBERT_IRRELEVANT,
        {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
    ),
}
# Defaults of a family that differ from those of BertConfig.
DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"vocab_size": 50265, "pad": 1},
    "xlm-roberta": {"pad": 1},
    "distilbert": {"num_layers": 6, "num_token_types": None},
}
# Fields of BertConfig that a family's config.json lacks, with the values that it implies.
LIMITS: dict[str, dict[str, tuple[Any, ...]]] = {
    "distilbert": {"num_token_types": (None,), "norm_eps": (1e-12,), "pooler": (False,)},
}
GELU_HEADS = ("roberta", "xlm-roberta")  # their head uses GELU, whatever the layers use
# Buffers of position and type ids, and the next sentence prediction head.
IGNORED = ("embeddings.position_ids", "embeddings.token_type_ids", "cls.seq_relationship.*")
EMBEDDING = "embeddings.word_embeddings.weight"


def from_bert(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Bert:
    """Build a Bert from a published checkpoint.

    The model has a masked language model head and a pooler if the checkpoint has their tensors.

    Args:
        config: fields of config.json; `model_type` is the family, BERT by default.
        state: tensors by name.

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError: a field with an unsupported value.
        CheckpointError: tensors that are missing, unexpected, or of other shapes.
    """
    family = config.get("model_type", "bert")
    names = FAMILIES[family]
    check_supported(names.title, config, SUPPORTED)
    state = RenamedTensors(state, lambda name: _canonical_name(name, names))
    fields = {ours: config[theirs] for theirs, ours in names.fields.items() if theirs in config}
    if "activation" in fields:
        field = next(theirs for theirs in ACTIVATION_FIELDS if theirs in names.fields)
        fields["activation"] = activation_of(names.title, config, field)
    bert_config = BertConfig(
        **{
            **DEFAULTS[family],
            **fields,
            "family": family,
            "head_activation": "gelu" if family in GELU_HEADS else fields.get("activation", "gelu"),
            "masked_words": f"{names.head['head.dense']}.weight" in state,
            "pooler": "pooler.dense.weight" in state,
        }
    )
    # The bias of an untied head has its own name in new checkpoints, and that of a tied head in old ones.
    own_bias = not bert_config.tied and f"{names.decoder}.bias" in state
    bias = f"{names.decoder}.bias" if own_bias else names.bias
    same = {f"{names.decoder}.weight": EMBEDDING} if bert_config.tied else {}
    if names.bias != f"{names.decoder}.bias" and not own_bias:
        same[f"{names.decoder}.bias"] = names.bias
    ignored = (*IGNORED, names.bias) if own_bias else IGNORED
    table = _names(bert_config, bias)
    return load_tensors(names.title, lambda: Bert(bert_config), state, table, same=same, ignored=ignored)


def to_bert(model: Bert) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Convert a Bert to a checkpoint of its family.

    Args:
        model: the model.

    Returns:
        Fields of config.json, and tensors by name.

    Raises:
        UnsupportedError: a configuration that the family's checkpoints cannot represent.
    """
    config = model.config
    names = FAMILIES[config.family]
    limits = dict(LIMITS.get(config.family, {}))
    limits["head_activation"] = ("gelu" if config.family in GELU_HEADS else config.activation,)
    for name, supported in limits.items():
        if config.masked_words and getattr(config, name) not in supported:
            raise UnsupportedError(
                f"{names.title} checkpoints have no {name}={getattr(config, name)!r}; expected {supported[0]!r}"
            )
    fields = {theirs: getattr(config, ours) for theirs, ours in names.fields.items()}
    fields |= {theirs: published_activation(fields[theirs]) for theirs in ACTIVATION_FIELDS if theirs in fields}
    fields |= {
        "model_type": config.family,
        "architectures": [f"{names.title}{'ForMaskedLM' if config.masked_words else 'Model'}"],
    }
    state = export_tensors(model, _names(config, names.bias))
    if config.masked_words:
        state[f"{names.decoder}.weight"] = state.get(f"{names.decoder}.weight", state[EMBEDDING])
        state[f"{names.decoder}.bias"] = state[names.bias] if config.tied else state[names.bias].clone()
        state = {name if name.startswith(names.heads) else names.prefix + name: x for name, x in state.items()}
    return fields, state


def _names(config: BertConfig, bias: str) -> Iterator[TensorName]:
    """The names of all tensors; `bias` is the checkpoint's name of the head's bias."""
    names = FAMILIES[config.family]
    yield TensorName("embedding.weight", EMBEDDING)
    yield TensorName("position_embedding.weight", "embeddings.position_embeddings.weight")
    if config.num_token_types is not None:
        yield TensorName("type_embedding.weight", "embeddings.token_type_embeddings.weight")
    yield from _weight_and_bias("norm", "embeddings.LayerNorm")
    for i in range(config.num_layers):
        for ours, theirs in names.layer.items():
            yield from _weight_and_bias(f"encoder.{i}.{ours}", f"{names.layers}.{i}.{theirs}")
    if config.masked_words:
        for ours, theirs in names.head.items():
            yield from _weight_and_bias(ours, theirs)
        if not config.tied:
            yield TensorName("head.weight", f"{names.decoder}.weight")
        yield TensorName("head.bias", bias)
    if config.pooler:
        yield from _weight_and_bias("pooler", "pooler.dense")


def _weight_and_bias(ours: str, theirs: str) -> Iterator[TensorName]:
    yield TensorName(f"{ours}.weight", f"{theirs}.weight")
    yield TensorName(f"{ours}.bias", f"{theirs}.bias")


def _canonical_name(name: str, names: FamilyNames) -> str:
    """A tensor's name without the prefix, and with weight and bias for gamma and beta of old checkpoints."""
    name = name.removeprefix(names.prefix)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
