"""Multi-head attention layer."""

from collections.abc import Callable
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
from regard.attention.summary import Summary, SummaryResult
from regard.attention.value import Value
from regard.errors import ConfigError, ShapeError, UnsupportedError
from regard.layers.attention_module import AttentionModule
from regard.layers.attention_settings import LearnedValue, build_normalizer, build_value, make_setting
from regard.layers.learned import Learned
from regard.layers.linear import Linear
from regard.layers.positions import Rotary
from regard.layers.quantized_attention import padded_call
from regard.layers.quantized_linear import is_quantized, joint_maps

AnyBias = Bias | Tensor | Callable[[Tensor], Bias | Tensor]  # a function: of the projected queries
NORM_EPS = 1e-6  # added to the mean square of the query-key norm


@final
class MultiHeadAttention(AttentionModule):
    """Multi-head attention with input and output projections, for self-attention and cross-attention.

    head h = attend(query W_q^h, key W_k^h, value W_v^h); output = [head 1 ... head H] W_o. Batch first, always.

    Score, normalizer, pattern and position bias are settings: a value that holds no tensor, such as `Causal()`, or a
    learned setting whose tensors become parameters of the layer, such as `LearnedCosine()`.

    Args:
        embed_dim: D, size of the queries before projection.
        num_heads: H, number of query heads.
        num_kv_heads: G, number of key and value heads, a divisor of H; H by default. 1 is multi-query attention.
        head_dim: E, size of a head; embed_dim / num_heads by default.
        key_dim: size of the keys before projection, for cross-attention; embed_dim by default.
        value_dim: size of the values before projection; key_dim by default.
        output_dim: size of the outputs; embed_dim by default.
        bias: whether the projections have a bias.
        key_bias: whether the key projection has a bias, which softmax cancels; same as `bias` by default.
        output_bias: whether the output projection has a bias; same as `bias` by default.
        positions: rotary position embedding of size head_dim for queries and keys; None for none.
        query_key_norm: whether queries and keys are RMS-normalized over each head, with a learned gain.
        dropout: probability that an attention weight is dropped, in training only.
        score: score function: a `Score` without tensors, or a learned setting for one.
        normalizer: a `Normalizer` without tensors, or a learned setting for one.
        pattern: which keys a query may attend to: a `Pattern` without tensors. Pass one that depends on the data to
            `forward`.
        position_bias: bias of the scores by position: a learned setting such as `LearnedRelativeBias()` or
            `ALiBiSlopes()`, or None.
        backend: "auto", or the name of a backend, which raises UnsupportedError where it cannot compute the call.

    Raises:
        ConfigError: incompatible sizes, or a setting that is of the wrong type or holds a tensor.

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
        output_dim: int | None = None,
        bias: bool = True,
        key_bias: bool | None = None,
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
        _check_sizes(
            embed_dim,
            num_heads,
            num_kv_heads,
            head_dim=head_dim,
            key_dim=key_dim,
            value_dim=value_dim,
            output_dim=output_dim,
        )
        self.embed_dim, self.num_heads, self.num_kv_heads = embed_dim, num_heads, num_kv_heads
        self.head_dim = embed_dim // num_heads if head_dim is None else head_dim
        self.key_dim = embed_dim if key_dim is None else key_dim
        self.value_dim = self.key_dim if value_dim is None else value_dim
        if not (is_number(dropout) and 0 <= dropout < 1):
            raise ConfigError(f"MultiHeadAttention: dropout={show(dropout)} must be a probability, 0 <= dropout < 1")
        if positions is not None and getattr(positions, "head_dim", None) != self.head_dim:
            raise ConfigError(
                f"MultiHeadAttention: positions={positions!r} does not match head_dim={self.head_dim}; expected "
                f"Rotary({self.head_dim}), or None; add other position embeddings to the inputs of the layer"
            )
        self.dropout, self.backend = dropout, backend

        self.query_proj = Linear(embed_dim, num_heads * self.head_dim, bias)
        self.key_proj = Linear(self.key_dim, num_kv_heads * self.head_dim, bias if key_bias is None else key_bias)
        self.value_proj = Linear(self.value_dim, num_kv_heads * self.head_dim, bias)
        self.output_dim = embed_dim if output_dim is None else output_dim
        with_bias = bias if output_bias is None else output_bias
        self.output_proj = Linear(num_heads * self.head_dim, self.output_dim, with_bias)
        self.query_norm = nn.RMSNorm(self.head_dim, eps=NORM_EPS) if query_key_norm else None
        self.key_norm = nn.RMSNorm(self.head_dim, eps=NORM_EPS) if query_key_norm else None
        self.positions = positions
        self.score = self._make_setting("score", score, Score)
        self.normalizer = self._make_setting("normalizer", normalizer, Normalizer)
        self.pattern = self._make_setting("pattern", pattern, Pattern)
        self.position_bias = None if position_bias is None else self._make_setting("position_bias", position_bias, Bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the parameters: Xavier-uniform projections (Glorot and Bengio 2010, equation 16), biases 0, gains 1."""
        for projection in (self.query_proj, self.key_proj, self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            if projection.bias is not None:
                nn.init.zeros_(projection.bias)
        for part in (self.query_norm, self.key_norm, self.score, self.normalizer, self.position_bias):
            if isinstance(part, nn.RMSNorm | LearnedValue):
                part.reset_parameters()

    @staticmethod
    def from_torch(module: nn.MultiheadAttention) -> "MultiHeadAttention":
        """Convert a torch.nn.MultiheadAttention to a layer with the same weights and outputs.

        PyTorch's boolean masks are True where attention is hidden: write `pattern=Mask.from_hidden(attn_mask)`, and for
        padding `Mask.from_hidden(key_padding_mask[:, None, None])`. The layer is batch first, whatever `batch_first`
        is. The output of a query without visible keys is NaN in PyTorch, and the output bias here.

        Args:
            module: the module, of which weights, dropout, dtype, device and mode are copied.

        Returns:
            The layer.

        Raises:
            ConfigError: not an nn.MultiheadAttention.
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
                f"from_torch: the module has {' and '.join(n for n, present in named.items() if present)}, extra "
                "keys that this layer does not support; use LearnedSink() to let a head attend to nothing"
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
        bias: AnyBias | None = ..., cache: KeyValueCache | None = ..., query_start: int | Tensor | None = ...,
        key_start: int = ..., seed: int | Tensor | None = ..., summary: None = ...,
    ) -> Tensor: ...  # fmt: skip

    @overload
    def forward(
        self, query: Tensor, key: Tensor | None = ..., value: Tensor | None = ..., *, pattern: Pattern | None = ...,
        bias: AnyBias | None = ..., cache: KeyValueCache | None = ..., query_start: int | Tensor | None = ...,
        key_start: int = ..., seed: int | Tensor | None = ..., summary: Summary,
    ) -> tuple[Tensor, SummaryResult]: ...  # fmt: skip

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        pattern: Pattern | None = None,
        bias: AnyBias | None = None,
        cache: KeyValueCache | None = None,
        query_start: int | Tensor | None = None,
        key_start: int = 0,
        seed: int | Tensor | None = None,
        summary: Summary | None = None,
        **others: object,
    ) -> Tensor | tuple[Tensor, SummaryResult]:
        """Self-attention of `query`, or cross-attention from `query` to `key` and `value`.

        Args:
            query: (B, L, D).
            key: (B, S, key_dim); `query` by default.
            value: (B, S, value_dim); `key` by default.
            pattern: combined by & with the layer's own pattern.
            bias: term added to the scores, for a layer without position_bias: a `Bias`, a tensor that broadcasts to
                (B, H, L, S), or a function that gives one of these for the projected queries (B, H, L, E).
            cache: KV cache of earlier calls, to which the keys and values of this call are appended. For inference
                only: no gradient reaches the key and value projections through it. In cross-attention, append the
                memory in the first call and pass `memory[:, :0]` as key in the others.
            query_start: position of the first query, an int or integers (B,); by default the last query has the
                position of the last key.
            key_start: position of the first key; must be omitted with a cache.
            seed: seed of the dropout; see `attend`.
            summary: which statistics of the weights to return besides the output; None for none.

        Returns:
            The output (B, L, output_dim); with a summary, a tuple of the output and a `SummaryResult`.

        Raises:
            ShapeError: inputs of incompatible sizes, or as for `attend`.
            ConfigError: two biases, a key_start together with a cache, a cache with a shorter lookback than the
                pattern, or as for `attend`.
            UnsupportedError: as for `attend`.
        """
        if others:
            raise unknown_argument("MultiHeadAttention", others, CALLS_OF_LAYERS, MultiHeadAttention.forward)
        key = query if key is None else key
        value = key if value is None else value
        self._check_inputs(query, key, value)
        _check_starts(query_start, key_start)
        if bias is not None and self.position_bias is not None:
            raise ConfigError(
                f"MultiHeadAttention: a call with bias to a layer with position_bias={self.position_bias}; use only "
                "one of them"
            )
        pattern, is_read = self._joined(pattern), False
        if cache is not None:
            _check_cache(cache, pattern, key_start)
            key_start, is_read = cache.length, cache.length > 0 and key.shape[1] == 0
            if query.shape[1] == key.shape[1] == 1 and query_start is None and isinstance(pattern, Causal):
                pattern = PLAIN.pattern  # the newest query sees all cached keys, and Full is faster

        joint = None
        if key is query and value is query:
            joint = joint_maps((self.query_proj, self.key_proj, self.value_proj), query)
        if joint is None:
            q = self._query_heads(self.query_proj(query))
            k, v = (q, q) if is_read else self.keys_and_values(key, value)
        else:
            q, k, v = self._query_heads(joint[0]), self._key_heads(joint[1]), _split(joint[2], self.num_kv_heads)
        if self.positions is not None:
            query_BL, key_S = positions(query.shape[1], key.shape[1], query_start, key_start, query.device)
            q = self.positions(q, query_BL)
            k = k if is_read else self.positions(k, key_S[None])
        if self.position_bias is not None:
            bias = build_value(self.position_bias)
        elif callable(bias):
            bias = bias(q)
        options = {"pattern": pattern, "bias": bias, "seed": seed, "query_start": query_start, "summary": summary}
        if cache is None:
            result = self._attend(q, k, v, key_start=key_start, **options)
        else:
            with nullcontext(cache.contents) if is_read else cache.appended(k, v) as (k, v, key_start):
                result = self._attend(q, k, v, key_start=key_start, **options)
        output_BHLE, summary_result = (result, None) if isinstance(result, Tensor) else result
        output = self.output_proj(output_BHLE.transpose(1, 2).flatten(2))
        return output if summary_result is None else (output, summary_result)

    def keys_and_values(self, key: Tensor, value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Project keys and values, without applying `positions`.

        Args:
            key: (B, S, key_dim).
            value: (B, S, value_dim); the keys by default.

        Returns:
            Keys and values (B, G, S, E), for `KeyValueCache.append`.
        """
        v = _split(self.value_proj(key if value is None else value), self.num_kv_heads)
        return self._key_heads(self.key_proj(key)), v

    def _query_heads(self, x: Tensor) -> Tensor:
        q = _split(x, self.num_heads)
        return q if self.query_norm is None else self.query_norm(q)

    def _key_heads(self, x: Tensor) -> Tensor:
        k = _split(x, self.num_kv_heads)
        return k if self.key_norm is None else self.key_norm(k)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor | tuple[Tensor, SummaryResult]:
        """Call `attend` with the settings of the layer."""
        length = q.shape[2]
        if is_quantized(self.query_proj) and (padded := padded_call(q, k, v, options)) is not None:
            q, k, v, options["pattern"] = padded
        result: Tensor | tuple[Tensor, SummaryResult] = attend(
            q,
            k,
            v,
            score=build_value(self.score),
            normalizer=build_normalizer(self.normalizer, self.training),
            dropout=self.dropout if self.training else 0.0,
            backend=self.backend,
            **options,
        )
        return result[:, :, :length] if isinstance(result, Tensor) else result

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

    def _make_setting(self, name: str, setting: object, kind: type[Value]) -> Any:
        plain = getattr(PLAIN, name, None)
        if type(setting) is type(plain) and setting == plain:
            return plain  # `attend` compares defaults by identity, for its fastest path
        return make_setting("MultiHeadAttention", name, setting, kind, self.num_heads, self.head_dim)

    def _joined(self, pattern: Pattern | None) -> Pattern:
        """Conjunction of the layer's pattern and that of the call."""
        if pattern is None or isinstance(pattern, Full):
            return self.pattern
        if isinstance(self.pattern, Full):
            return pattern
        joined: Pattern = self.pattern & pattern
        return joined

    def _check_inputs(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Raise ShapeError unless the inputs match the projections."""
        for name, x, size in (
            ("query", query, self.embed_dim),
            ("key", key, self.key_dim),
            ("value", value, self.value_dim),
        ):
            if not is_dense(x) or x.dim() != 3 or x.shape[-1] != size:
                hint = "; without `key` the layer computes self-attention" if x is query else ""
                raise ShapeError(
                    f"MultiHeadAttention: {name} is {show(x)}; expected a tensor (batch, length, {size}){hint}"
                )
        if not query.shape[0] == key.shape[0] == value.shape[0] or key.shape[1] != value.shape[1]:
            raise ShapeError(
                f"MultiHeadAttention: query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}; "
                "expected equal batch sizes, and key and value of equal length"
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


def _check_starts(query_start: object, key_start: object) -> None:
    """Raise ConfigError unless these are valid positions, before the cache changes."""
    if not (query_start is None or isinstance(query_start, Tensor) or is_integer(query_start)) or not (
        is_integer(key_start)
    ):
        raise ConfigError(
            f"MultiHeadAttention: query_start={show(query_start)} and key_start={show(key_start)} must be integers; "
            "query_start may also be an integer tensor (batch,) or None"
        )


def _check_cache(cache: KeyValueCache, pattern: Pattern, key_start: int) -> None:
    """Raise ConfigError unless the cache stores every key that the pattern allows."""
    if not isinstance(cache, KeyValueCache):
        raise ConfigError(
            f"MultiHeadAttention: cache={show(cache)} is not a KeyValueCache; make one with for_pattern(...)"
        )
    if key_start:
        raise ConfigError(
            f"MultiHeadAttention: key_start={key_start} together with a cache, whose next position is {cache.length}; "
            "omit key_start"
        )
    if cache.lookback is not None and (pattern.lookback is None or pattern.lookback > cache.lookback):
        needed = "any number of" if pattern.lookback is None else pattern.lookback
        raise ConfigError(
            f"MultiHeadAttention: the cache stores lookback={cache.lookback} keys, but {pattern} lets a query see "
            f"{needed} keys before its own position; make the cache with KeyValueCache.for_pattern(layer.pattern)"
        )


def _split(x: Tensor, heads: int) -> Tensor:
    """Split (B, L, heads * E) into heads, (B, heads, L, E)."""
    split: Tensor = x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(1, 2)
    return split
