"""Attention with projections of its own: the layer that models use."""

from contextlib import nullcontext
from typing import Any, final, overload

import torch
from torch import Tensor, nn

from regard.attention.attend import attend
from regard.attention.bias import Bias
from regard.attention.cache import KeyValueCache
from regard.attention.check import check_integer, is_dense, is_integer, is_number, show
from regard.attention.engine.foreign_arguments import CALLS_OF_LAYERS, LAYERS, unknown_argument
from regard.attention.normalizer import Normalizer, Softmax
from regard.attention.patterns.pattern import Causal, Full, Pattern, positions
from regard.attention.score import Dot, Score
from regard.attention.spec import PLAIN
from regard.attention.summary import Seen, Summary
from regard.attention.value import Value
from regard.errors import ConfigError, ShapeError, UnsupportedError
from regard.layers.attention_module import AttentionModule
from regard.layers.attention_settings import LearnedValue, current, keep
from regard.layers.learned import Learned
from regard.layers.linear import Linear
from regard.layers.positions import Rotary

NORM_EPS = 1e-6  # under the root of the query-key norm


@final
class MultiHeadAttention(AttentionModule):
    """Attention in several heads, with projections before and after it: self and cross attention.

    head h = attend(query W_q^h, key W_k^h, value W_v^h); output = [head 1 ... head H] W_o. Batch first, always.

    The five values are settings: one that holds no tensor is used as it is (`Causal()`), one that needs learned
    tensors is named by a setting whose tensors the layer owns (`LearnedCosine()`).

    Args:
        embed_dim: D, the size of queries and outputs.
        num_heads: H, query heads.
        num_kv_heads: G, key and value heads, which divides H; H by default. 1 is multi-query attention.
        head_dim: E, the size of a head; embed_dim / num_heads by default.
        key_dim: the size of keys before their projection, in cross attention; embed_dim by default.
        value_dim: the size of values before their projection; key_dim by default.
        bias: whether the projections add a bias.
        output_bias: whether the last of them does; as the others by default.
        positions: a `Rotary` of size head_dim, which turns queries and keys; None for none.
        query_key_norm: whether queries and keys are divided by their root mean square over a head, with a learned gain.
        dropout: the probability that a weight is dropped, in training only.
        score: how well a key answers a query: a `Score` without tensors, or a learned setting for one.
        normalizer: what turns a row of scores into weights: a `Normalizer` without tensors, or a learned setting.
        pattern: which keys a query may attend to: a `Pattern` without tensors. One that follows from the data is given
            to `forward`.
        position_bias: what is added to the scores by position: a learned setting such as `LearnedRelativeBias()` or
            `ALiBiSlopes()`, or None.
        backend: "auto", or the name of one, which then runs or refuses.

    Raises:
        ConfigError: sizes that don't go together, or a setting of the wrong kind or that holds a tensor.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.2; grouped heads: Ainslie et al. 2023,
    arXiv 2305.13245, section 2.2; query-key norm: Henry et al. 2020, arXiv 2010.04245, section 3, and Dehghani et al.
    2023, arXiv 2302.05442, section 2, here with the root mean square and a gain.

    >>> layer = rg.MultiHeadAttention(64, 4, positions=rg.Rotary(16), pattern=rg.Causal(), score=rg.LearnedCosine())
    >>> layer(torch.randn(2, 10, 64)).shape
    torch.Size([2, 10, 64])
    >>> cross = rg.MultiHeadAttention(64, 4, key_dim=48)
    >>> cross(torch.randn(2, 10, 64), torch.randn(2, 7, 48), pattern=rg.KeyLengths(torch.tensor([7, 5]))).shape
    torch.Size([2, 10, 64])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        key_dim: int | None = None,
        value_dim: int | None = None,
        bias: bool = True,
        output_bias: bool | None = None,
        positions: Rotary | None = None,
        query_key_norm: bool = False,
        dropout: float = 0.0,
        score: Score | Learned = Dot(),
        normalizer: Normalizer | Learned = Softmax(),
        pattern: Pattern = Full(),
        position_bias: Bias | Learned | None = None,
        backend: str = "auto",
        **others: object,
    ) -> None:
        super().__init__()
        if others:
            raise unknown_argument("MultiHeadAttention", others, LAYERS, MultiHeadAttention.__init__)
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        _check_sizes(embed_dim, num_heads, num_kv_heads, head_dim=head_dim, key_dim=key_dim, value_dim=value_dim)
        self.embed_dim, self.num_heads, self.num_kv_heads = embed_dim, num_heads, num_kv_heads
        self.head_dim = embed_dim // num_heads if head_dim is None else head_dim
        self.key_dim = embed_dim if key_dim is None else key_dim
        self.value_dim = self.key_dim if value_dim is None else value_dim
        if not (is_number(dropout) and 0 <= dropout < 1):
            raise ConfigError(f"MultiHeadAttention: dropout={show(dropout)} must be a probability, 0 <= dropout < 1")
        if positions is not None and getattr(positions, "head_dim", None) != self.head_dim:
            raise ConfigError(
                f"MultiHeadAttention: positions={positions!r} does not turn heads of {self.head_dim}; expected "
                f"Rotary({self.head_dim}), or None; other positions are added to the tokens before the layer"
            )
        self.dropout, self.backend = dropout, backend

        self.query_proj = Linear(embed_dim, num_heads * self.head_dim, bias)
        self.key_proj = Linear(self.key_dim, num_kv_heads * self.head_dim, bias)
        self.value_proj = Linear(self.value_dim, num_kv_heads * self.head_dim, bias)
        self.output_proj = Linear(num_heads * self.head_dim, embed_dim, bias if output_bias is None else output_bias)
        self.query_norm = nn.RMSNorm(self.head_dim, eps=NORM_EPS) if query_key_norm else None
        self.key_norm = nn.RMSNorm(self.head_dim, eps=NORM_EPS) if query_key_norm else None
        self.positions = positions
        self.score = self._keep("score", score, Score)
        self.normalizer = self._keep("normalizer", normalizer, Normalizer)
        self.pattern = self._keep("pattern", pattern, Pattern)
        self.position_bias = None if position_bias is None else self._keep("position_bias", position_bias, Bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start again: projections as Glorot and Bengio 2010, equation 16 ("Xavier"), biases 0, gains 1."""
        for projection in (self.query_proj, self.key_proj, self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            if projection.bias is not None:
                nn.init.zeros_(projection.bias)
        for part in (self.query_norm, self.key_norm, self.score, self.normalizer, self.position_bias):
            if isinstance(part, nn.RMSNorm | LearnedValue):
                part.reset_parameters()

    @staticmethod
    def from_torch(module: nn.MultiheadAttention) -> "MultiHeadAttention":
        """The layer with the weights of PyTorch's, and the same outputs.

        PyTorch's masks hide where they are True: `pattern=Mask.from_hidden(attn_mask)`, and for padding
        `Mask.from_hidden(key_padding_mask[:, None, None])`. Ours is batch first whatever `batch_first` says. A query
        that may see nothing gets NaN there, and the output bias here.

        Args:
            module: weights, dropout, dtype, device and mode are taken over as copies.

        Returns:
            The layer.

        Raises:
            ConfigError: something else than an nn.MultiheadAttention.
            UnsupportedError: a module with bias_k and bias_v, or add_zero_attn.

        >>> module = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        >>> x = torch.randn(1, 3, 8)
        >>> torch.allclose(rg.MultiHeadAttention.from_torch(module)(x), module(x, x, x)[0], atol=1e-6)
        True
        """
        if not isinstance(module, nn.MultiheadAttention):
            raise ConfigError(f"from_torch: got a {type(module).__name__}; expected a torch.nn.MultiheadAttention")
        named = {"bias_k and bias_v": module.bias_k is not None, "add_zero_attn": module.add_zero_attn}
        if any(named.values()):
            raise UnsupportedError(
                f"from_torch: the module has {' and '.join(n for n, there in named.items() if there)}, keys that no "
                "input stands for, which this layer has not; LearnedSink() lets a head attend to nothing"
            )
        layer = MultiHeadAttention(
            module.embed_dim,
            module.num_heads,
            key_dim=module.kdim,
            value_dim=module.vdim,
            bias=module.in_proj_bias is not None,
            dropout=module.dropout,
        )
        projections = (layer.query_proj, layer.key_proj, layer.value_proj)
        if module.in_proj_weight is not None:
            weights = module.in_proj_weight.chunk(3)
        else:
            weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        layer.to(module.out_proj.weight).train(module.training)
        with torch.no_grad():
            for projection, weight in zip(
                (*projections, layer.output_proj), (*weights, module.out_proj.weight), strict=True
            ):
                projection.weight.copy_(weight)
            if module.in_proj_bias is not None:
                biases = (*module.in_proj_bias.chunk(3), module.out_proj.bias)
                for projection, bias in zip((*projections, layer.output_proj), biases, strict=True):
                    projection.bias.copy_(bias)
        return layer

    @overload
    def forward(
        self, query: Tensor, key: Tensor | None = ..., value: Tensor | None = ..., *, pattern: Pattern | None = ...,
        bias: Bias | Tensor | None = ..., cache: KeyValueCache | None = ..., query_start: int | Tensor | None = ...,
        key_start: int = ..., seed: int | Tensor | None = ..., summary: None = ...,
    ) -> Tensor: ...  # fmt: skip

    @overload
    def forward(
        self, query: Tensor, key: Tensor | None = ..., value: Tensor | None = ..., *, pattern: Pattern | None = ...,
        bias: Bias | Tensor | None = ..., cache: KeyValueCache | None = ..., query_start: int | Tensor | None = ...,
        key_start: int = ..., seed: int | Tensor | None = ..., summary: Summary,
    ) -> tuple[Tensor, Seen]: ...  # fmt: skip

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        pattern: Pattern | None = None,
        bias: Bias | Tensor | None = None,
        cache: KeyValueCache | None = None,
        query_start: int | Tensor | None = None,
        key_start: int = 0,
        seed: int | Tensor | None = None,
        summary: Summary | None = None,
        **others: object,
    ) -> Tensor | tuple[Tensor, Seen]:
        """Attention of the queries over the keys, or over themselves.

        Args:
            query: (B, L, D).
            key: (B, S, key_dim); the queries themselves by default.
            value: (B, S, value_dim); the keys by default.
            pattern: joins the layer's own by `&`.
            bias: what is added to the scores, if the layer has no position_bias: a value, or a tensor that broadcasts
                to (B, H, L, S).
            cache: keys and values of earlier calls, which the queries see too; this call's are appended. For
                inference: no gradient reaches the projections of keys and values through it. In cross attention,
                append the memory in the first call and give `memory[:, :0]` in the others.
            query_start: position of the first query, an int or integers (B,); by default the last query stands on the
                last key.
            key_start: position of the first key; the cache knows its own.
            seed: which weights are dropped; see `attend`.
            summary: what else to return.

        Returns:
            The output (B, L, D), and, if a summary is asked for, a `Seen`.

        Raises:
            ShapeError: inputs of other sizes, or as for `attend`.
            ConfigError: two biases, a key_start beside a cache, a cache that keeps less than the pattern lets a query
                see, or as for `attend`.
            UnsupportedError: as for `attend`.
        """
        if others:
            raise unknown_argument("MultiHeadAttention", others, CALLS_OF_LAYERS, MultiHeadAttention.forward)
        key = query if key is None else key
        value = key if value is None else value
        self._check_inputs(query, key, value)
        _check_places(query_start, key_start)
        if bias is not None and self.position_bias is not None:
            raise ConfigError(
                f"MultiHeadAttention: bias is given to a call of a layer with position_bias={self.position_bias}; one "
                "of them can be added to the scores"
            )
        pattern, nothing_new = self._joined(pattern), False
        if cache is not None:
            _check_cache(cache, pattern, key_start)
            key_start, nothing_new = cache.length, cache.length > 0 and key.shape[1] == 0
            if query.shape[1] == key.shape[1] == 1 and query_start is None and isinstance(pattern, Causal):
                pattern = PLAIN.pattern  # the newest query sees all that is kept, and no mask takes less time

        q = _split(self.query_proj(query), self.num_heads)
        q = q if self.query_norm is None else self.query_norm(q)
        k, v = (q, q) if nothing_new else self.keys_and_values(key, value)
        if self.positions is not None:
            query_BL, key_S = positions(query.shape[1], key.shape[1], query_start, key_start, query.device)
            q = self.positions(q, query_BL)
            k = k if nothing_new else self.positions(k, key_S[None])
        bias = bias if self.position_bias is None else current(self.position_bias)
        options = {"pattern": pattern, "bias": bias, "seed": seed, "query_start": query_start, "summary": summary}
        if cache is None:
            found = self._attend(q, k, v, key_start=key_start, **options)
        else:
            with nullcontext(cache.kept) if nothing_new else cache.appended(k, v) as (k, v, key_start):
                found = self._attend(q, k, v, key_start=key_start, **options)
        output_BHLE, seen = (found, None) if isinstance(found, Tensor) else found
        output = self.output_proj(output_BHLE.transpose(1, 2).flatten(2))
        return output if seen is None else (output, seen)

    def keys_and_values(self, key: Tensor, value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What queries attend to, projected; `positions` are not applied yet.

        Args:
            key: (B, S, key_dim).
            value: (B, S, value_dim); the keys by default.

        Returns:
            Keys and values (B, G, S, E), for `KeyValueCache.append`.
        """
        k = _split(self.key_proj(key), self.num_kv_heads)
        v = _split(self.value_proj(key if value is None else value), self.num_kv_heads)
        return k if self.key_norm is None else self.key_norm(k), v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor | tuple[Tensor, Seen]:
        """The operator with the layer's own values."""
        found: Tensor | tuple[Tensor, Seen] = attend(
            q,
            k,
            v,
            score=current(self.score),
            normalizer=current(self.normalizer),
            dropout=self.dropout if self.training else 0.0,
            backend=self.backend,
            **options,
        )
        return found

    def extra_repr(self) -> str:
        values = {"score": self.score, "normalizer": self.normalizer, "position_bias": self.position_bias}
        shown = {
            "heads": self.num_heads if self.num_heads == self.num_kv_heads else (self.num_heads, self.num_kv_heads),
            "head_dim": self.head_dim,
            "dropout": self.dropout,
            **{name: value for name, value in values.items() if isinstance(value, Value)},
            "pattern": self.pattern,
            "backend": self.backend,
        }
        return ", ".join(f"{name}={value}" for name, value in shown.items())

    def _keep(self, name: str, setting: object, kind: type[Value]) -> Any:
        plain = getattr(PLAIN, name, None)
        if type(setting) is type(plain) and setting == plain:
            return plain  # the operator knows its defaults by identity, and is quickest with them
        return keep("MultiHeadAttention", name, setting, kind, self.num_heads, self.head_dim)

    def _joined(self, pattern: Pattern | None) -> Pattern:
        """The layer's pattern and the call's."""
        if pattern is None or isinstance(pattern, Full):
            return self.pattern
        if isinstance(self.pattern, Full):
            return pattern
        joined: Pattern = self.pattern & pattern
        return joined

    def _check_inputs(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Raise unless the inputs are of the sizes that the projections take."""
        for name, x, size in (
            ("query", query, self.embed_dim),
            ("key", key, self.key_dim),
            ("value", value, self.value_dim),
        ):
            if not is_dense(x) or x.dim() != 3 or x.shape[-1] != size:
                hint = "; without `key` the layer attends to the queries themselves" if x is query else ""
                raise ShapeError(
                    f"MultiHeadAttention: {name} is {show(x)}; expected a tensor (batch, length, {size}){hint}"
                )
        if not query.shape[0] == key.shape[0] == value.shape[0] or key.shape[1] != value.shape[1]:
            raise ShapeError(
                f"MultiHeadAttention: query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}; "
                "expected one batch size, and keys and values of one length"
            )


def _check_sizes(embed_dim: int, num_heads: int, num_kv_heads: int, **others: int | None) -> None:
    sizes = {"embed_dim": embed_dim, "num_heads": num_heads, "num_kv_heads": num_kv_heads, **others}
    for name, size in sizes.items():
        if size is not None:
            check_integer("MultiHeadAttention", name, size, 1)
    if num_heads % num_kv_heads:
        raise ConfigError(
            f"MultiHeadAttention: num_kv_heads={num_kv_heads} must divide num_heads={num_heads}: each key head serves "
            "the same number of query heads"
        )
    if others["head_dim"] is None and embed_dim % num_heads:
        raise ConfigError(
            f"MultiHeadAttention: embed_dim={embed_dim} is not a multiple of num_heads={num_heads}; change one of "
            "them, or give head_dim"
        )


def _check_places(query_start: object, key_start: object) -> None:
    """Raise unless these are positions, before anything is turned or kept by them."""
    if not (query_start is None or isinstance(query_start, Tensor) or is_integer(query_start)) or not (
        is_integer(key_start)
    ):
        raise ConfigError(
            f"MultiHeadAttention: query_start={show(query_start)} and key_start={show(key_start)} must be integers; "
            "the first may be an integer tensor (batch,) or None"
        )


def _check_cache(cache: KeyValueCache, pattern: Pattern, key_start: int) -> None:
    """Raise unless the cache keeps all that the pattern lets a query see."""
    if not isinstance(cache, KeyValueCache):
        raise ConfigError(f"MultiHeadAttention: cache={show(cache)} is not a KeyValueCache; for_pattern(...) makes one")
    if key_start:
        raise ConfigError(
            f"MultiHeadAttention: key_start={key_start} beside a cache, whose next key stands at {cache.length}; leave "
            "it out"
        )
    if cache.lookback is not None and (pattern.lookback is None or pattern.lookback > cache.lookback):
        reach = "any number of" if pattern.lookback is None else pattern.lookback
        raise ConfigError(
            f"MultiHeadAttention: the cache keeps lookback={cache.lookback} keys, but {pattern} lets a query see "
            f"{reach} keys before its own position; make it with KeyValueCache.for_pattern(layer.pattern)"
        )


def _split(x: Tensor, heads: int) -> Tensor:
    """(B, L, heads * E) as (B, heads, L, E)."""
    split: Tensor = x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(1, 2)
    return split
