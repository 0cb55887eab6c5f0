"""Misuses that a value finds by itself, before any call: see `cases.py`."""

from collections.abc import Callable

import torch

import regard as rg
from regard.attention.patterns.pattern import Pattern
from regard.attention.value import Value, value
from regard.errors import ConfigError, ShapeError

ON = torch.ones(2, 2, dtype=torch.bool)


def located(previous: torch.Tensor | None = None, filters: torch.Tensor | None = None) -> rg.LocationAware:
    """A location-aware score of 4 keys, 2 filters and head_dim 5."""
    return rg.LocationAware.from_previous(
        torch.ones(4) if previous is None else previous,
        filters=torch.ones(2, 3) if filters is None else filters,
        projection=torch.ones(2, 5),
        vector=torch.ones(5),
    )


SCORES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("dot-scale-text", lambda: rg.Dot(scale="8"), ConfigError, "scale='8' must be a finite number or a tensor"),
    ("dot-scale-nan", lambda: rg.Dot(scale=float("nan")), ConfigError, "scale=nan must be a finite number"),
    ("dot-softcap-zero", lambda: rg.Dot(softcap=0), ConfigError, "softcap=0 must be a positive number, or None"),
    ("dot-softcap-text", lambda: rg.Dot(softcap="30"), ConfigError, "softcap='30' must be a positive number"),
    ("dot-softcap-tensor", lambda: rg.Dot(softcap=torch.ones(2)), ConfigError, "softcap=Tensor(torch.float32, (2,))"),
    ("cosine-scale-none", lambda: rg.Cosine(None), ConfigError, "Cosine: scale=None must be a finite number"),
    ("bilinear-list", lambda: rg.Bilinear([[1.0]]), ShapeError, "Bilinear: weight=[[1.0]] is not a tensor; wrap it"),
    ("bilinear-vector", lambda: rg.Bilinear(torch.ones(5)), ShapeError, "weight has shape (5,); expected (query dim"),
    (
        "additive-activation",
        lambda: rg.Additive(torch.ones(5), activation="tahn"),
        ConfigError,
        "unknown activation 'tahn'; did you mean 'tanh'? Known: tanh, relu, sigmoid",
    ),
    (
        "additive-activation-function",
        lambda: rg.Additive(torch.ones(5), activation=torch.nn.Tanh()),
        ConfigError,
        "unknown activation Tanh(); did you mean 'tanh'?",
    ),
    ("additive-list", lambda: rg.Additive([1.0]), ShapeError, "Additive: vector=[1.0] is not a tensor"),
    ("additive-3d", lambda: rg.Additive(torch.ones(1, 2, 5)), ShapeError, "shape (1, 2, 5); expected (head_dim,)"),
    (
        "location-aware-number",
        lambda: rg.LocationAware(1.0, torch.ones(4, 2), torch.ones(2, 5)),
        ShapeError,
        "LocationAware: vector=1.0 is not a tensor",
    ),
    (
        "location-aware-features",
        lambda: rg.LocationAware(torch.ones(5), torch.ones(4), torch.ones(2, 5)),
        ShapeError,
        "LocationAware: features has shape (4,); expected one that broadcasts to (batch, heads, queries, keys, f",
    ),
    (
        "location-aware-projection",
        lambda: rg.LocationAware(torch.ones(5), torch.ones(4, 2), torch.ones(3, 5)),
        ShapeError,
        "features have shape (4, 2), but projection has shape (3, 5); expected a projection (..., 2, head_dim)",
    ),
    (
        "location-aware-previous",
        lambda: located(previous=torch.ones(1, 1, 1, 1, 4)),
        ShapeError,
        "LocationAware: previous has shape (1, 1, 1, 1, 4); expected one that broadcasts to",
    ),
    (
        "location-aware-even",
        lambda: located(filters=torch.ones(2, 4)),
        ShapeError,
        "filters have shape (2, 4), 4 taps; expected an odd number",
    ),
    (
        "location-aware-heads",
        lambda: located(previous=torch.ones(2, 1, 4), filters=torch.ones(3, 2, 5)),
        ShapeError,
        "filters have shape (3, 2, 5), but previous has shape (1, 2, 1, 4); expected 3 heads, or 1",
    ),
    ("location-list", lambda: rg.Location([[1.0]]), ShapeError, "Location: weight=[[1.0]] is not a tensor"),
    ("location-vector", lambda: rg.Location(torch.ones(5)), ShapeError, "shape (5,); expected (positions, head_dim)"),
]

NORMALIZERS: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("alpha-one", lambda: rg.Entmax(1.0), ConfigError, "alpha=1.0 must be above 1 (toward 1 it is Softmax(), 2 is"),
    ("alpha-below", lambda: rg.Entmax(alpha=0.5), ConfigError, "alpha=0.5 must be above 1"),
    ("alpha-tensor", lambda: rg.Entmax(torch.tensor([1.5, 0.75])), ConfigError, "alpha=0.75 must be above 1"),
    ("alpha-infinite", lambda: rg.Entmax(float("inf")), ConfigError, "alpha=inf must be a finite number"),
    ("alpha-nan", lambda: rg.Entmax(float("nan")), ConfigError, "alpha=nan must be a finite number"),
    ("alpha-text", lambda: rg.Entmax("1.5"), ConfigError, "alpha='1.5' must be a finite number or a tensor above 1"),
    ("sink-number", lambda: rg.Softmax(sink=0.0), ShapeError, "Softmax: sink=0.0 is not a tensor; wrap it in torch.t"),
    ("prior-text", lambda: rg.Softmax(prior="gaussian"), ConfigError, "prior='gaussian' is not a Prior; expected"),
    ("prior-tensor", lambda: rg.Softmax(prior=torch.ones(5)), ConfigError, "prior=Tensor(torch.float32, (5,))"),
    ("sigmoid-bias", lambda: rg.Sigmoid(None), ConfigError, "Sigmoid: bias=None must be a finite number or a tensor"),
    (
        "normalized-sigmoid-bias",
        lambda: rg.NormalizedSigmoid("0"),
        ConfigError,
        "NormalizedSigmoid: bias='0' must be a finite number or a tensor",
    ),
    ("sigma-zero", lambda: rg.Gaussian(torch.ones(5), 0.0), ConfigError, "sigma=0.0 must be above 0, in positions"),
    (
        "sigma-tensor",
        lambda: rg.Gaussian(torch.ones(5), torch.tensor([1.0, -2.0])),
        ConfigError,
        "sigma=-2.0 must be above 0",
    ),
    ("sigma-text", lambda: rg.Gaussian(torch.ones(5), "wide"), ConfigError, "sigma='wide' must be a finite number"),
    ("center-list", lambda: rg.Gaussian([1.0], 1.0), ShapeError, "Gaussian: center=[1.0] is not a tensor"),
    (
        "center-integers",
        lambda: rg.Gaussian(torch.tensor([1, 2, 3]), 1.0),
        ShapeError,
        "center is torch.int64 of shape (3,); expected floats",
    ),
]

BIASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("bias-list", lambda: rg.TensorBias([1.0]), ShapeError, "TensorBias: tensor=[1.0] is not a tensor"),
    ("bias-booleans", lambda: rg.TensorBias(ON), ShapeError, "got torch.bool of shape (2, 2); expected floats"),
    ("bias-5d", lambda: rg.TensorBias(torch.ones(1, 2, 3, 5, 7)), ShapeError, "of shape (1, 2, 3, 5, 7); expected"),
    ("alibi-number", lambda: rg.ALiBi(8), ShapeError, "ALiBi: slopes=8 is not a tensor"),
    ("alibi-no-heads", lambda: rg.ALiBi.for_heads(0), ConfigError, "num_heads=0 must be an integer >= 1"),
    ("alibi-half-a-head", lambda: rg.ALiBi.for_heads(2.5), ConfigError, "num_heads=2.5 must be an integer >= 1"),
    ("table-list", lambda: rg.RelativeBias([[1.0]]), ShapeError, "RelativeBias: table=[[1.0]] is not a tensor"),
    ("table-vector", lambda: rg.RelativeBias(torch.ones(32)), ShapeError, "shape (32,); expected (buckets, heads)"),
    (
        "table-buckets",
        lambda: rg.RelativeBias(torch.ones(3, 2)),
        ConfigError,
        "3 buckets and max_distance=128: expected",
    ),
    (
        "table-distance",
        lambda: rg.RelativeBias(torch.ones(32, 2), max_distance=8),
        ConfigError,
        "max_distance=8: expected at least 4 buckets and a max_distance above the 8 exact distances",
    ),
    (
        "table-distance-text",
        lambda: rg.RelativeBias(torch.ones(32, 2), max_distance="far"),
        ConfigError,
        "max_distance='far' must be an integer",
    ),
]

POSITIONAL: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "window-negative",
        lambda: rg.SlidingWindow(left=-1),
        ConfigError,
        "left=-1 must be an integer >= 0 keys, or None",
    ),
    (
        "window-right",
        lambda: rg.SlidingWindow(right=-3),
        ConfigError,
        "SlidingWindow: right=-3 must be an integer >= 0",
    ),
    ("window-fraction", lambda: rg.SlidingWindow(left=1.5), ConfigError, "left=1.5 must be an integer >= 0"),
    ("window-boolean", lambda: rg.SlidingWindow(left=True), ConfigError, "left=True must be an integer >= 0"),
    ("window-tensor", lambda: rg.SlidingWindow(left=torch.tensor(3)), ConfigError, "left=Tensor(torch.int64, ())"),
    ("dilation-zero", lambda: rg.Dilated(0), ConfigError, "dilation=0 must be an integer >= 1 (1 is a plain window)"),
    ("dilation-left", lambda: rg.Dilated(2, left=-5), ConfigError, "Dilated: left=-5 must be an integer >= 0 keys"),
    ("stride-zero", lambda: rg.Strided(0), ConfigError, "Strided: stride=0 must be an integer >= 1"),
    ("stride-float", lambda: rg.Strided(2.0), ConfigError, "Strided: stride=2.0 must be an integer >= 1"),
    (
        "global-negative",
        lambda: rg.GlobalTokens([5, -2]),
        ConfigError,
        "positions from -2 to 5; expected positions >= 0",
    ),
    ("global-number", lambda: rg.GlobalTokens(3), ConfigError, "positions=3; expected integers, as in GlobalTokens([0"),
    ("global-float", lambda: rg.GlobalTokens([0.5]), ConfigError, "positions=[0.5]; expected integers"),
    ("and-boolean", lambda: rg.Causal() & True, ConfigError, "Causal() & True: True is not a pattern"),
    (
        "and-tensor",
        lambda: rg.Causal() & ON,
        ConfigError,
        "Tensor(torch.bool, (2, 2)) is not a pattern; wrap a boolean tensor",
    ),
    ("or-none", lambda: rg.Causal() | None, ConfigError, "Causal() | None: None is not a pattern"),
    (
        "python-and",
        lambda: rg.Causal() and rg.Full(),
        ConfigError,
        "Causal() has no truth value; combine patterns with & |",
    ),
    ("python-not", lambda: not rg.Strided(3), ConfigError, "Strided(stride=3) has no truth value"),
    ("draw-nothing", lambda: rg.Causal().draw(0, 5), ShapeError, "Causal(): queries=0 must be an integer >= 1"),
    ("draw-half", lambda: rg.Causal().draw(3, 2.5), ShapeError, "Causal(): keys=2.5 must be an integer"),
    ("density-nothing", lambda: rg.Causal().density(5, 0), ShapeError, "keys=0 must be an integer >= 1"),
    ("schedule-block", lambda: rg.Causal().schedule(5, 5, block=0), ShapeError, "block=0 must be an integer >= 1"),
    (
        "schedule-start",
        lambda: rg.Causal().schedule(5, 5, query_start=1.5),
        ShapeError,
        "query_start=1.5 must be an in",
    ),
    (
        "draw-mask",
        lambda: rg.Mask(ON).draw(5, 2),
        ShapeError,
        "Mask.tensor has shape (2, 2), but the score matrix has 5 queries x",
    ),
    (
        "draw-layout",
        lambda: rg.BlockSparse(ON, 2).draw(5, 4),
        ShapeError,
        "the layout covers positions 0 to 3 of the q",
    ),
]

BLOCKS: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("layout-list", lambda: rg.BlockSparse([[True]], 2), ShapeError, "BlockSparse: layout=[[True]] is not a tensor"),
    (
        "layout-floats",
        lambda: rg.BlockSparse(torch.ones(2, 3), 2),
        ShapeError,
        "layout is torch.float32 of shape (2, 3)",
    ),
    ("layout-empty", lambda: rg.BlockSparse(ON[:0], 2), ShapeError, "layout is torch.bool of shape (0, 2); expected"),
    ("layout-size", lambda: rg.BlockSparse(ON, 0), ConfigError, "block_size=0 must be an integer >= 1"),
    ("random-seed", lambda: rg.RandomBlocks(seed=-7, length=8), ConfigError, "seed=-7 must be an integer >= 0"),
    ("random-length", lambda: rg.RandomBlocks(seed=7, length=0), ConfigError, "length=0 must be an integer >= 1"),
    (
        "random-count",
        lambda: rg.RandomBlocks(seed=7, length=100, count=3),
        ConfigError,
        "count=3 must be at most the 2 blocks of 64 in length=100",
    ),
]

SEQUENCES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("lengths-list", lambda: rg.KeyLengths([1, 2]), ShapeError, "KeyLengths: lengths=[1, 2] is not a tensor"),
    (
        "lengths-floats",
        lambda: rg.KeyLengths(torch.ones(2)),
        ShapeError,
        "lengths is torch.float32 of shape (2,); expect",
    ),
    (
        "lengths-booleans",
        lambda: rg.KeyLengths(ON),
        ShapeError,
        "lengths is torch.bool of shape (2, 2); expected integ",
    ),
    ("prefix-number", lambda: rg.PrefixLM(3), ShapeError, "PrefixLM: prefix_lengths=3 is not a tensor"),
    (
        "documents-1d",
        lambda: rg.Documents(torch.tensor([1, 2, 2])),
        ShapeError,
        "query_ids is torch.int64 of shape (3,); expected integers of shape (batch, length)",
    ),
    ("mask-list", lambda: rg.Mask([[True]]), ShapeError, "Mask: tensor=[[True]] is not a tensor"),
    (
        "mask-floats",
        lambda: rg.Mask(torch.zeros(5, 7)),
        ShapeError,
        "got torch.float32 of shape (5, 7); expected torch.bool that broadcasts to (batch, heads, queries, keys)",
    ),
    ("mask-hidden-list", lambda: rg.Mask.from_hidden([True]), ShapeError, "hidden=[True] is not a tensor"),
    (
        "mask-hidden-floats",
        lambda: rg.Mask.from_hidden(torch.zeros(5, 7)),
        ShapeError,
        "got torch.float32 of shape (5, 7)",
    ),
    ("around-list", lambda: rg.Around([1.0], left=1, right=1), ShapeError, "Around: center=[1.0] is not a tensor"),
    (
        "around-4d",
        lambda: rg.Around(torch.ones(1, 2, 3, 5), left=1, right=1),
        ShapeError,
        "shape (1, 2, 3, 5); expected",
    ),
    (
        "around-left",
        lambda: rg.Around(torch.ones(5), left=-2, right=1),
        ConfigError,
        "left=-2 must be a number of positi",
    ),
    ("around-right", lambda: rg.Around(torch.ones(5), left=2, right=None), ConfigError, "right=None must be a number"),
]

SUMMARIES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "summary-nothing",
        lambda: rg.Summary(),
        ConfigError,
        "nothing is selected; name at least one summary, as in Summary(",
    ),
    ("summary-top-k", lambda: rg.Summary(top_k=-1), ConfigError, "Summary: top_k=-1 must be an integer >= 0"),
    ("summary-top-k-true", lambda: rg.Summary(top_k=True), ConfigError, "Summary: top_k=True must be an integer >= 0"),
    ("summary-text", lambda: rg.Summary(entropy="yes"), ConfigError, "Summary: entropy='yes' must be True or False"),
    (
        "summary-grid",
        lambda: rg.Summary(grid=(0, 3)),
        ConfigError,
        "grid=(0, 3) must be (query bins, key bins), two int",
    ),
    ("summary-grid-number", lambda: rg.Summary(grid=3), ConfigError, "grid=3 must be (query bins, key bins)"),
]


class Bare(Value):
    """A value of someone's own, not decorated."""


def field_that_hides_a_method() -> None:
    @value
    class Odd(Value):
        tensor_fields: int = 3


@value
class Undeclared(Pattern):
    """A tensor in a field that does not say along which axes."""

    tensor: torch.Tensor

    def visible(self, query_BL: torch.Tensor, key_S: torch.Tensor) -> torch.Tensor:
        return self.tensor


FAR: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "window-far",
        lambda: rg.SlidingWindow(0, 2**63),
        ConfigError,
        "right=9223372036854775808 must be an integer >= 0",
    ),
    ("stride-far", lambda: rg.Strided(2**70), ConfigError, "stride=1180591620717411303424 must be an integer >= 1"),
    ("global-far", lambda: rg.GlobalTokens([0, 2**70]), ConfigError, "positions from 0 to 1180591620717411303424"),
    ("draw-key-start", lambda: rg.Causal().draw(4, 4, key_start="a"), ShapeError, "key_start='a' must be an integer"),
    (
        "density-start-list",
        lambda: rg.Causal().density(4, 4, query_start=[0, 1]),
        ShapeError,
        "query_start=[0, 1] must be an integer, or an integer tensor (batch,)",
    ),
]

OWN: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "value-undecorated",
        lambda: Bare().tensor_fields,
        ConfigError,
        "Bare is not a value class; decorate it with regard.attention",
    ),
    (
        "value-undeclared-tensor",
        lambda: Undeclared(torch.ones(2)).tensor_fields,
        ConfigError,
        "Undeclared: field 'tensor' holds a tensor without declared axes; declare it with regard.attention.value",
    ),
    (
        "value-field-hides",
        field_that_hides_a_method,
        ConfigError,
        "Odd: field 'tensor_fields' shadows an attribute of a base class",
    ),
]

CASES = OWN + FAR + SCORES + NORMALIZERS + BIASES + POSITIONAL + BLOCKS + SEQUENCES + SUMMARIES
