"""BERT's, DistilBERT's and RoBERTa's checkpoints: config.json's fields and the names of tensors, and back."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from regard.errors import UnsupportedError
from regard.models.bert import Bert, BertConfig
from regard.models.published import (
    COMMON_IRRELEVANT,
    COMMON_ONLY,
    HEADS,
    MARKS,
    TRAINING,
    Fields,
    Named,
    Renamed,
    activation_of,
    check_only,
    published_activation,
    read_named,
    write_named,
)

# Fields that change the mathematics, and their supported values.
ONLY: dict[str, tuple[Any, ...]] = {
    **COMMON_ONLY,
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "position_embedding_type": ("absolute", None),
}
IRRELEVANT = {
    **COMMON_IRRELEVANT,
    **dict.fromkeys(("bos_token_id", "eos_token_id", "mask_token_id", "cls_token_id", "unk_token_id"), MARKS),
    **dict.fromkeys(
        (
            "classifier_dropout", "directionality", "pooler_fc_size", "pooler_num_attention_heads",
            "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "sbert_ce_default_activation_function",
            "sentence_transformers",
        ),
        HEADS,
    ),
    **dict.fromkeys(("cell", "emb_size", "pre_trained", "structure", "training"), TRAINING),  # TinyBERT's
    "cross_attention_hidden_size": "of decoders",
    "task_specific_params": "of generation",
}  # fmt: skip
DISTILBERT_IRRELEVANT = {
    **IRRELEVANT,
    **dict.fromkeys(("qa_dropout", "seq_classif_dropout"), HEADS),
    "sinusoidal_pos_embds": "of positions, which have their tensor",
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


class Kind(NamedTuple):
    """How a family names things."""

    title: str  # in messages, and as the classes of the transformers package start
    prefix: str  # of the encoder's tensors, where there is a head
    fields: dict[str, str]  # theirs, ours
    layers: str
    layer: dict[str, str]  # ours, theirs
    head: dict[str, str]  # ours, theirs
    decoder: str  # the head's map to the logits
    bias: str  # its bias under its first name
    heads: tuple[str, ...]  # what names of the head's tensors start with


BERT_HEAD = {"head.dense": "cls.predictions.transform.dense", "head.norm": "cls.predictions.transform.LayerNorm"}
ROBERTA_HEAD = {"head.dense": "lm_head.dense", "head.norm": "lm_head.layer_norm"}
DISTILBERT_HEAD = {"head.dense": "vocab_transform", "head.norm": "vocab_layer_norm"}
BERT_PARTS = ("encoder.layer", BERT_LAYER)
ROBERTA_REST = ("roberta.", BERT_FIELDS, *BERT_PARTS, ROBERTA_HEAD, "lm_head.decoder", "lm_head.bias", ("lm_head.",))
KINDS = {
    "bert": Kind(
        "Bert", "bert.", BERT_FIELDS, *BERT_PARTS, BERT_HEAD, "cls.predictions.decoder", "cls.predictions.bias",
        ("cls.",),
    ),
    "roberta": Kind("Roberta", *ROBERTA_REST),
    "xlm-roberta": Kind("XLMRoberta", *ROBERTA_REST),
    "distilbert": Kind(
        "DistilBert", "distilbert.", DISTILBERT_FIELDS, "transformer.layer", DISTILBERT_LAYER, DISTILBERT_HEAD,
        "vocab_projector", "vocab_projector.bias", ("vocab_",),
    ),
}  # fmt: skip
FIELDS = {
    **{
        family: Fields(KINDS[family].title, (*BERT_FIELDS, "model_type"), ONLY, IRRELEVANT)
        for family in ("bert", "roberta", "xlm-roberta")
    },
    "distilbert": Fields(
        KINDS["distilbert"].title,
        (*DISTILBERT_FIELDS, "model_type"),
        ONLY,
        DISTILBERT_IRRELEVANT,
        {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
    ),
}
# What a family's configuration says where it differs from BertConfig's defaults.
DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"vocab_size": 50265, "pad": 1},
    "xlm-roberta": {"pad": 1},
    "distilbert": {"num_layers": 6, "num_token_types": None},
}
# What a family's checkpoints have no field for: ours, and what it must be.
LIMITS: dict[str, dict[str, tuple[Any, ...]]] = {
    "distilbert": {"num_token_types": (None,), "norm_eps": (1e-12,), "pooler": (False,)},
}
GELU_HEADS = ("roberta", "xlm-roberta")  # whose head has this activation, whatever the layers have
# Numbers of places, and the head that says whether a text follows another, which no job here asks for.
IGNORED = ("embeddings.position_ids", "embeddings.token_type_ids", "cls.seq_relationship.*")
EMBEDDING = "embeddings.word_embeddings.weight"


def from_bert(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Bert:
    """The model of a published configuration and its tensors.

    A masked-word head and a pooler are there if their tensors are.

    Args:
        config: the fields of config.json; `model_type` says the family, BERT by default.
        state: the tensors by name.

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError: a field that says something this model does not compute.
        CheckpointError: tensors that are missing, unknown, or of other shapes.
    """
    family = config.get("model_type", "bert")
    kind = KINDS[family]
    check_only(kind.title, config, ONLY)
    state = Renamed(state, lambda name: _renamed(name, kind))
    given = {ours: config[theirs] for theirs, ours in kind.fields.items() if theirs in config}
    if "activation" in given:
        field = next(theirs for theirs in ACTIVATION_FIELDS if theirs in kind.fields)
        given["activation"] = activation_of(kind.title, config, field)
    made = BertConfig(
        **{
            **DEFAULTS[family],
            **given,
            "family": family,
            "head_activation": "gelu" if family in GELU_HEADS else given.get("activation", "gelu"),
            "masked_words": f"{kind.head['head.dense']}.weight" in state,
            "pooler": "pooler.dense.weight" in state,
        }
    )
    # The bias of an untied head has a place of its own in new checkpoints, and the tied one's in old ones.
    own_bias = not made.tied and f"{kind.decoder}.bias" in state
    bias = f"{kind.decoder}.bias" if own_bias else kind.bias
    same = {f"{kind.decoder}.weight": EMBEDDING} if made.tied else {}
    if kind.bias != f"{kind.decoder}.bias" and not own_bias:
        same[f"{kind.decoder}.bias"] = kind.bias
    ignored = (*IGNORED, kind.bias) if own_bias else IGNORED
    return read_named(kind.title, lambda: Bert(made), state, _names(made, bias), same=same, ignored=ignored)


def to_bert(model: Bert) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A model's configuration and tensors as its family publishes them.

    Args:
        model: the model.

    Returns:
        Fields of config.json, and tensors by name.

    Raises:
        UnsupportedError: what the family's checkpoints cannot say.
    """
    config = model.config
    kind = KINDS[config.family]
    limits = dict(LIMITS.get(config.family, {}))
    limits["head_activation"] = ("gelu" if config.family in GELU_HEADS else config.activation,)
    for name, only in limits.items():
        if config.masked_words and getattr(config, name) not in only:
            raise UnsupportedError(f"{kind.title} has no {name}={getattr(config, name)!r}; expected {only[0]!r}")
    fields = {theirs: getattr(config, ours) for theirs, ours in kind.fields.items()}
    fields |= {theirs: published_activation(fields[theirs]) for theirs in ACTIVATION_FIELDS if theirs in fields}
    fields |= {
        "model_type": config.family,
        "architectures": [f"{kind.title}{'ForMaskedLM' if config.masked_words else 'Model'}"],
    }
    state = write_named(model, _names(config, kind.bias))
    if config.masked_words:
        state[f"{kind.decoder}.weight"] = state.get(f"{kind.decoder}.weight", state[EMBEDDING])
        state[f"{kind.decoder}.bias"] = state[kind.bias] if config.tied else state[kind.bias].clone()
        state = {name if name.startswith(kind.heads) else kind.prefix + name: x for name, x in state.items()}
    return fields, state


def _names(config: BertConfig, bias: str) -> Iterator[Named]:
    """Our name and theirs of every tensor; `bias` is where the head's stands."""
    kind = KINDS[config.family]
    yield Named("embedding.weight", EMBEDDING)
    yield Named("position_embedding.weight", "embeddings.position_embeddings.weight")
    if config.num_token_types is not None:
        yield Named("type_embedding.weight", "embeddings.token_type_embeddings.weight")
    yield from _both("norm", "embeddings.LayerNorm")
    for i in range(config.num_layers):
        for ours, theirs in kind.layer.items():
            yield from _both(f"encoder.{i}.{ours}", f"{kind.layers}.{i}.{theirs}")
    if config.masked_words:
        for ours, theirs in kind.head.items():
            yield from _both(ours, theirs)
        if not config.tied:
            yield Named("head.weight", f"{kind.decoder}.weight")
        yield Named("head.bias", bias)
    if config.pooler:
        yield from _both("pooler", "pooler.dense")


def _both(ours: str, theirs: str) -> Iterator[Named]:
    yield Named(f"{ours}.weight", f"{theirs}.weight")
    yield Named(f"{ours}.bias", f"{theirs}.bias")


def _renamed(name: str, kind: Kind) -> str:
    """A tensor's name without the prefix, and with what the first checkpoints called gamma and beta."""
    name = name.removeprefix(kind.prefix)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
