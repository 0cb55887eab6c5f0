"""Misuses of the models, their configurations and the attention that they use: see `cases.py`."""

from collections.abc import Callable

import torch
from torch import Tensor

import regard as rg
from regard.errors import ConfigError, ShapeError
from regard.layers.attention_config import AttentionConfig
from regard.layers.cross_attention import CrossAttention
from regard.layers.location_aware_attention import LocationAwareAttention
from regard.models.convs2s import ConvS2SConfig
from regard.models.luong import Luong, LuongConfig
from regard.models.registry import build, config_from_plain, config_to_plain, name_of, register_model
from regard.models.rnn import RNN, RNNConfig
from regard.models.seq2seq import Vocabulary

SMALL = Vocabulary(size=9)


def rnn(**changes: object) -> RNN:
    return RNN(RNNConfig(vocabulary=SMALL, **{"embed_dim": 4, "hidden_dim": 4, **changes}))


def attend(*shapes: tuple[int, ...], align_dim: int | None = 7) -> Tensor:
    return CrossAttention(5, 6, align_dim=align_dim)(*(torch.zeros(shape) for shape in shapes))


def located(*shapes: tuple[int, ...], **options: object) -> object:
    attention = LocationAwareAttention(5, 6, **{"align_dim": 7, "kernel_size": 3, **options})
    return attention(*(torch.zeros(shape) for shape in shapes)) if shapes else attention


IDS = torch.ones(2, 3, dtype=torch.int64)

CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    # location-aware attention
    ("located-size", lambda: located(align_dim=0), ConfigError, "LocationAwareAttention: align_dim=0 must be an int"),
    (
        "located-even",
        lambda: located(kernel_size=4),
        ConfigError,
        "kernel_size=4 must be odd, with a tap in the middle",
    ),
    ("located-window", lambda: located(window=-1), ConfigError, "window=-1 must be an integer >= 0, or None"),
    ("located-smoothing", lambda: located(smoothing="yes"), ConfigError, "smoothing='yes' must be True or False"),
    (
        "located-query",
        lambda: located((2, 5), (2, 4, 7), (2, 4, 6), (2, 1, 4)),
        ShapeError,
        "LocationAwareAttention: query is Tensor(torch.float32, (2, 5)); expected (batch, hypotheses, 5)",
    ),
    (
        "located-key",
        lambda: located((2, 1, 5), (2, 4, 6), (2, 4, 6), (2, 1, 4)),
        ShapeError,
        "key is Tensor(torch.float32, (2, 4, 6)); expected (batch, source length, 7), from project_key",
    ),
    (
        "located-previous",
        lambda: located((2, 3, 5), (2, 4, 7), (2, 4, 6), (2, 1, 4)),
        ShapeError,
        "previous has shape (2, 1, 4); expected (2, 3, 4), for queries (2, 3, 5) and keys (2, 4, 7)",
    ),
    # cross attention
    ("cross-size", lambda: CrossAttention(0, 6), ConfigError, "CrossAttention: query_dim=0 must be an integer >= 1"),
    ("cross-sizes", lambda: CrossAttention(5, 6), ConfigError, "query_dim=5 and key_dim=6 differ; give align_dim"),
    (
        "cross-score",
        lambda: CrossAttention(5, 5, score=rg.Entmax(1.5)),
        ConfigError,
        "CrossAttention: score=Entmax(alpha=1.5) is not a Score",
    ),
    (
        "cross-query",
        lambda: attend((2, 4, 6), (2, 3, 7), (2, 3, 6)),
        ShapeError,
        "CrossAttention: query is Tensor(torch.float32, (2, 4, 6)); expected (batch, length, 5)",
    ),
    (
        "cross-key",
        lambda: attend((2, 4, 5), (2, 3, 6), (2, 3, 6)),
        ShapeError,
        "key is Tensor(torch.float32, (2, 3, 6)); expected (batch, source length, 7), from project_key",
    ),
    (
        "cross-value",
        lambda: attend((2, 4, 5), (2, 3, 7), (2, 3)),
        ShapeError,
        "value is Tensor(torch.float32, (2, 3)); expected (batch, source length, size)",
    ),
    (
        "cross-bias",
        lambda: rnn(attention=AttentionConfig(position_bias=rg.ALiBiSlopes())),
        ConfigError,
        "attention.position_bias=ALiBiSlopes(learned=False) applies to self-attention, which this model does not have",
    ),
    (
        "rnn-fixed",
        lambda: rnn(context="fixed", attention=AttentionConfig(normalizer=rg.Sparsemax())),
        ConfigError,
        "context='fixed' has no attention; got AttentionConfig(normalizer=Sparsemax()",
    ),
    # fields of the configurations
    ("rnn-context", lambda: rnn(context="fix"), ConfigError, "RNNConfig: unknown context 'fix'; did you mean 'fixed'?"),
    ("rnn-size", lambda: rnn(hidden_dim=0), ConfigError, "RNNConfig: hidden_dim=0 must be an integer >= 1"),
    ("rnn-size-text", lambda: rnn(embed_dim="64"), ConfigError, "RNNConfig: embed_dim='64' must be an integer"),
    ("rnn-dropout", lambda: rnn(dropout=1.5), ConfigError, "p=1.5 must be a probability"),
    ("rnn-dropout-text", lambda: rnn(dropout="0.1"), ConfigError, "RNNConfig: dropout='0.1' must be a float"),
    ("rnn-tie", lambda: rnn(tie_output=1), ConfigError, "RNNConfig: tie_output=1 must be a bool"),
    ("rnn-vocabulary", lambda: RNNConfig(vocabulary=9), ConfigError, "RNNConfig: vocabulary=9 must be a Vocabulary"),
    ("luong-score", lambda: LuongConfig(vocabulary=SMALL, score="dott"), ConfigError, "'dott'; did you mean 'dot'?"),
    (
        "luong-bidirectional",
        lambda: LuongConfig(vocabulary=SMALL, bidirectional=True, hidden_dim=5),
        ConfigError,
        "bidirectional=True with hidden_dim=5; expected an even number",
    ),
    (
        "luong-window",
        lambda: LuongConfig(vocabulary=SMALL, window="local"),
        ConfigError,
        "LuongConfig: unknown window 'local'; did you mean 'local-",
    ),
    (
        "luong-normalizer",
        lambda: LuongConfig(vocabulary=SMALL, window="local-p", attention=AttentionConfig(normalizer=rg.Sparsemax())),
        ConfigError,
        "LuongConfig: window='local-p' needs softmax, times a Gaussian; got normalizer=Sparsemax(); leave it out, or",
    ),
    ("convs2s-kernel", lambda: ConvS2SConfig(vocabulary=SMALL, kernel=4), ConfigError, "kernel=4 must be odd"),
    # tokens
    ("tokens-list", lambda: rnn()([[1]], None, IDS), ShapeError, "inputs is [[1]]; expected token ids"),
    (
        "tokens-floats",
        lambda: rnn()(IDS, None, torch.ones(2, 3)),
        ShapeError,
        "expected token ids, integers of shape (batch, length)",
    ),
    (
        "tokens-rows",
        lambda: rnn()(IDS, None, IDS[:1]),
        ShapeError,
        "inputs has 2 rows and targets has 1; expected the same number",
    ),
    (
        "lengths",
        lambda: rnn()(IDS, torch.tensor([1, 2, 3]), IDS),
        ShapeError,
        "lengths is Tensor(torch.int64, (3,)); expected integers of shape (2,): the number of inputs in each row that",
    ),
    (
        "rnn-no-token",
        lambda: rnn()(IDS[:, :0], None, IDS),
        ShapeError,
        "GRU: got shape (2, 0, 4); expected at least one position (dimension 1)",
    ),
    # the registry
    (
        "model-taken",
        lambda: register_model("rnn", LuongConfig, Luong),
        ConfigError,
        "a model named 'rnn' is already registered; choose another name",
    ),
    ("model-name", lambda: config_from_plain("lung", {}), ConfigError, "unknown model 'lung'; did you mean 'luong'?"),
    ("model-list", lambda: config_from_plain(["rnn"], {}), ConfigError, "unknown model ['rnn']"),
    ("model-plain", lambda: config_from_plain("rnn", [1]), ConfigError, "rnn=[1] must be a dictionary of fields"),
    (
        "model-setting",
        lambda: config_from_plain("rnn", {"hiden_dim": 3}),
        ConfigError,
        "rnn has no field 'hiden_dim'; did you mean 'hidden_dim'? Known: vocabulary, embed_dim, hidden_dim, align_dim",
    ),
    ("model-missing", lambda: config_from_plain("rnn", {}), ConfigError, "rnn requires vocabulary; got nothing"),
    (
        "model-vocabulary",
        lambda: config_from_plain("rnn", {"vocabulary": {"pad": 0}}),
        ConfigError,
        "vocabulary requires size; got pad, more_eos, never",
    ),
    (
        "model-vocabulary-number",
        lambda: config_from_plain("rnn", {"vocabulary": 100}),
        ConfigError,
        "vocabulary=100 must be a dictionary",
    ),
    (
        "model-vocabulary-text",
        lambda: config_from_plain("rnn", {"vocabulary": {"size": "100"}}),
        ConfigError,
        "vocabulary: size='100' must be an integer >= 0",
    ),
    (
        "model-vocabulary-range",
        lambda: config_from_plain("rnn", {"vocabulary": {"size": 2}}),
        ConfigError,
        "vocabulary: pad=0, bos=1, eos=2; expected token ids below size=2",
    ),
    (
        "model-config",
        lambda: name_of(SMALL),
        ConfigError,
        "Vocabulary(size=9, pad=0, bos=1, eos=2) is not the config",
    ),
    (
        "model-build",
        lambda: build("rnn"),
        ConfigError,
        "'rnn' is not the configuration of a model; expected one of TransformerConfig, RNNConfig, LuongConfig",
    ),
    ("model-to-plain", lambda: config_to_plain(None), ConfigError, "None is not the configuration of a model"),
]
