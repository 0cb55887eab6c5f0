"""Single-head cross-attention of recurrent and convolutional models."""

from typing import Any, final

from torch import Tensor, nn

from regard.attention.attend import attend
from regard.attention.check import check_integer, show
from regard.attention.normalizer import Normalizer, Softmax
from regard.attention.patterns.pattern import Full, Pattern
from regard.attention.score import Bilinear, Dot, Location, Score
from regard.attention.summary import Summary, SummaryResult
from regard.errors import ConfigError, ShapeError
from regard.layers.attention_config import AttentionConfig
from regard.layers.attention_module import AttentionModule
from regard.layers.attention_settings import LearnedValue, build_normalizer, build_value, make_setting
from regard.layers.learned import Learned, LearnedAdditive
from regard.layers.linear import Linear


@final
class CrossAttention(AttentionModule):
    """Single-head cross-attention without value projection: output = attend(query W, key U, value).

    Keys are projected once per sentence, by `project_key`, rather than in every decoding step.

    Args:
        query_dim: size of the queries.
        key_dim: size of the keys.
        align_dim: size of the projected queries and keys; None for no projections.
        score: score function: a `Score` without tensors, or a learned setting for one.
        normalizer: a `Normalizer` without tensors, or a learned setting for one.
        pattern: which keys a query may attend to: a `Pattern` without tensors. Pass one that depends on the data to
            `forward`.

    Raises:
        ConfigError: incompatible sizes, or a setting that is of the wrong type or holds a tensor.

    Source: Bahdanau et al. 2014, arXiv 1409.0473, appendix A.1.2, where W is W_a and U is U_a.

    >>> import regard as rg
    >>> attention = CrossAttention(5, 6, align_dim=7, score=rg.LearnedAdditive())
    >>> source = torch.randn(2, 3, 6)
    >>> attention(torch.randn(2, 1, 5), attention.project_key(source), source).shape
    torch.Size([2, 1, 6])
    """

    def __init__(
        self,
        query_dim: int,
        key_dim: int,
        *,
        align_dim: int | None = None,
        score: Score | Learned = Dot(),
        normalizer: Normalizer | Learned = Softmax(),
        pattern: Pattern = Full(),
    ) -> None:
        super().__init__()
        for name, size in (("query_dim", query_dim), ("key_dim", key_dim), ("align_dim", align_dim)):
            if size is not None:
                check_integer("CrossAttention", name, size, 1)
        if align_dim is None and query_dim != key_dim:
            raise ConfigError(
                f"CrossAttention: query_dim={query_dim} and key_dim={key_dim} differ; give align_dim, the size "
                "that both are projected to"
            )
        self.query_dim, self.key_dim, self.align_dim = query_dim, key_dim, align_dim
        head_dim = query_dim if align_dim is None else align_dim
        self.query_proj = None if align_dim is None else Linear(query_dim, align_dim)
        self.key_proj = None if align_dim is None else Linear(key_dim, align_dim, bias=False)
        self.score = make_setting("CrossAttention", "score", score, Score, 1, head_dim)
        self.normalizer = make_setting("CrossAttention", "normalizer", normalizer, Normalizer, 1, head_dim)
        self.pattern = make_setting("CrossAttention", "pattern", pattern, Pattern, 1, head_dim)
        self.reset_parameters()

    @staticmethod
    def chosen(
        query_dim: int, key_dim: int, choice: AttentionConfig, *, score: Score | Learned, align_dim: int | None = None
    ) -> "CrossAttention":
        """Make the cross-attention of a model from its paper's defaults and its configuration.

        Args:
            query_dim: as for `CrossAttention`.
            key_dim: as for `CrossAttention`.
            choice: configured changes.
            score: default score.
            align_dim: default size of the projections; None for none. A configured additive score needs projections
                and uses query_dim then.

        Returns:
            The module.

        Raises:
            ConfigError: as for `CrossAttention`, or a position bias, which is for self-attention.
        """
        if choice.position_bias is not None:
            raise ConfigError(
                f"attention.position_bias={show(choice.position_bias)} applies to self-attention, which this model "
                "does not have; leave it out, or use a transformer"
            )
        configured = {name: getattr(choice, name) for name in ("score", "normalizer", "pattern")}
        values: dict[str, Any] = {"score": score} | {name: x for name, x in configured.items() if x is not None}
        if align_dim is None and isinstance(values["score"], LearnedAdditive):
            align_dim = query_dim
        return CrossAttention(query_dim, key_dim, align_dim=align_dim, **values)

    def reset_parameters(self) -> None:
        """Reset the parameters: Xavier-uniform projections (Glorot and Bengio 2010, equation 16), bias 0."""
        for projection in (self.query_proj, self.key_proj):
            if projection is not None:
                nn.init.xavier_uniform_(projection.weight)
        if self.query_proj is not None:
            nn.init.zeros_(self.query_proj.bias)
        for part in (self.score, self.normalizer):
            if isinstance(part, LearnedValue):
                part.reset_parameters()

    def project_key(self, key: Tensor) -> Tensor:
        """Project the keys for `forward`, once per sentence.

        Args:
            key: (B, S, key_dim).

        Returns:
            (B, S, E).
        """
        projected: Tensor = key if self.key_proj is None else self.key_proj(key)
        return projected

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        pattern: Pattern | None = None,
        normalizer: Normalizer | None = None,
        query_start: int = 0,
        summary: Summary | None = None,
    ) -> Any:
        """Attend to the values.

        Args:
            query: (B, L, query_dim); or (B, K, L, query_dim), K hypotheses that share the keys of their sentence.
            key: result of `project_key`, (B, S, E).
            value: (B, S, V).
            pattern: combined by & with the module's own pattern.
            normalizer: replaces the module's own, for one that depends on the data.
            query_start: position of the first query, the same for all hypotheses.
            summary: which summaries of the weights to return; their heads are the hypotheses.

        Returns:
            The output, (B, L, V) or (B, K, L, V); with a summary, a tuple of the output and a `SummaryResult`.

        Raises:
            ShapeError: inputs of incompatible sizes.
        """
        self._check_inputs(query, key, value)
        projected = query if self.query_proj is None else self.query_proj(query)
        query_BKLE = projected[:, None] if query.dim() == 3 else projected
        result: Tensor | tuple[Tensor, SummaryResult] = attend(
            query_BKLE,
            _like(key, query_BKLE)[:, None],
            _like(value, query_BKLE)[:, None],
            score=_of_one_head(build_value(self.score)),
            normalizer=build_normalizer(self.normalizer, self.training) if normalizer is None else normalizer,
            pattern=self._joined(pattern),
            query_start=query_start,
            summary=summary,
        )
        output_BKLV, summary_result = (result, None) if isinstance(result, Tensor) else result
        output = output_BKLV[:, 0] if query.dim() == 3 else output_BKLV
        return output if summary_result is None else (output, summary_result)

    def extra_repr(self) -> str:
        sizes = f"query_dim={self.query_dim}, key_dim={self.key_dim}, align_dim={self.align_dim}"
        return f"{sizes}, pattern={self.pattern}"

    def _joined(self, pattern: Pattern | None) -> Pattern:
        """Conjunction of the module's pattern and that of the call."""
        if pattern is None or isinstance(self.pattern, Full):
            return self.pattern if pattern is None else pattern
        joined: Pattern = self.pattern if isinstance(pattern, Full) else self.pattern & pattern
        return joined

    def _check_inputs(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        head_dim = self.query_dim if self.align_dim is None else self.align_dim
        for name, x, dims, size, shape in (
            ("query", query, (3, 4), self.query_dim, f"(batch, length, {self.query_dim}) or with hypotheses second"),
            ("key", key, (3,), head_dim, f"(batch, source length, {head_dim}), from project_key"),
            ("value", value, (3,), None, "(batch, source length, size)"),
        ):
            if not isinstance(x, Tensor) or x.dim() not in dims or size not in (None, x.shape[-1]):
                raise ShapeError(f"CrossAttention: {name} is {show(x)}; expected {shape}")


def _of_one_head(score: Score) -> Score:
    """The score without its head dimension, for one matrix product over the batch instead of one per sentence."""
    if isinstance(score, Bilinear | Location) and score.weight.dim() == 3:
        return type(score)(score.weight[0])
    return score


def _like(x: Tensor, query: Tensor) -> Tensor:
    """Cast to the dtype of the query; under autocast, projections and unprojected inputs differ in dtype."""
    return x.to(query.dtype)
