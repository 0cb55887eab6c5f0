"""Quantization of a runner's model to int8, with a report of size, speed and quality before and after."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

from torch import nn

from regard.compress.calibrate import MapError, calibrate
from regard.errors import ConfigError, UnsupportedError
from regard.layers.quantization import quantize_maps
from regard.layers.quantized_linear import is_quantized
from regard.tasks.bootstrap import Difference, paired_difference
from regard.tasks.runner import Runner
from regard.tasks.score_table import ScoreTable, as_text

MAX_ERROR = 0.1  # relative error of a linear map's outputs beyond which it stays in float32
CALIBRATION = 64  # records that errors are measured on
GROUPS, LEAST_GROUP = 25, 8  # groups of records that the bootstrap draws from, and records of one
SHOWN = 5  # maps with the largest errors in the report


class Quality(NamedTuple):
    """Scores and speed of a model on records."""

    metric: str
    scores: list[float]  # of each group of records
    records: int
    seconds: float

    @property
    def score(self) -> float:
        """Mean of the groups."""
        return sum(self.scores) / len(self.scores)

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.seconds


@final
@dataclass(frozen=True, kw_only=True)
class QuantizeReport:
    """Sizes, errors, speed and scores of a model in float32 and in int8."""

    bytes_before: int
    bytes_after: int
    max_error: float
    maps: list[MapError] = field(default_factory=list)  # empty without records
    kept: list[str] = field(default_factory=list)  # names of linear maps that stay in float32
    before: Quality | None = None
    after: Quality | None = None
    difference: Difference | None = None

    def parts(self) -> list[ScoreTable | str]:
        """The report as tables and lines."""
        rows = [("weights, MB", f"{self.bytes_before / 1e6:,.1f}", f"{self.bytes_after / 1e6:,.1f}")]
        if self.before is not None and self.after is not None:
            rows.append(("records a second", f"{self.before.rate:,.1f}", f"{self.after.rate:,.1f}"))
            rows.append((self.before.metric, f"{self.before.score:.4g}", f"{self.after.score:.4g}"))
        lines: list[ScoreTable | str] = [ScoreTable(("", "before", "int8"), rows, widths=(18, 10, 10)), ""]
        if self.difference is not None and self.before is not None:
            mean, low, high = self.difference
            groups = len(self.before.scores)
            lines.append(
                f"difference of {self.before.metric}: {mean:+.2g}, 95% interval {low:+.2g} to {high:+.2g} "
                f"(paired bootstrap, {groups} groups of {self.before.records:,} records)"
            )
        called = sorted((x for x in self.maps if x.error is not None), key=lambda x: -(x.error or 0))
        if called:
            lines.append(f"largest errors of {len(called)} linear maps and embeddings:")
        lines += [f"  {x.name}: {x.error:.2%}; {x.vanished:.2%} of inputs become 0" for x in called[:SHOWN]]
        lines += [f"stays in float32, error above {self.max_error:.0%}: {name}" for name in self.kept]
        return lines

    def table(self) -> str:
        """The report as text."""
        return as_text(self.parts())

    def to_plain(self) -> dict[str, Any]:
        """The report as JSON's types."""
        quality = {
            name: None if x is None else {**x._asdict(), "score": x.score, "rate": x.rate}
            for name, x in (("before", self.before), ("after", self.after))
        }
        return {
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "max_error": self.max_error,
            "maps": [x._asdict() for x in self.maps],
            "kept": self.kept,
            **quality,
            "difference": None if self.difference is None else self.difference._asdict(),
        }


def quantize(
    runner: Runner, records: Sequence[Any] | None = None, *, max_error: float = MAX_ERROR, batch_size: int = 32
) -> QuantizeReport:
    """Quantize a runner's model to int8, in place.

    Args:
        runner: the result of `regard.load`, in float32.
        records: what its `evaluate` takes. On the first 64 of them the error of each linear map is measured; all of
            them are evaluated before and after. None for neither.
        max_error: relative error of a linear map's outputs beyond which it stays in float32.
        batch_size: records that run together.

    Returns:
        The report.

    Raises:
        ConfigError: a negative max_error, or a model that has int8 weights already.
        UnsupportedError: records for a model whose runner cannot evaluate.
        DataError: no records, as `evaluate` has it.
    """
    if any(map(is_quantized, runner.module.modules())):
        raise ConfigError("quantize: the model has int8 weights already; give the float32 model that it was made from")
    if not max_error >= 0:
        raise ConfigError(f"quantize: max_error={max_error!r}; expected a share, 0 or more, such as {MAX_ERROR}")
    size = weight_bytes(runner.module)
    if records is None:
        quantize_maps(runner.module)
        return QuantizeReport(bytes_before=size, bytes_after=weight_bytes(runner.module), max_error=max_error)
    evaluate = getattr(runner, "evaluate", None)
    if evaluate is None:
        raise UnsupportedError(
            f"quantize: a {type(runner).__name__} has no evaluate, by which records are measured; leave records out"
        )
    maps = calibrate(runner.module, lambda: evaluate(records[:CALIBRATION], batch_size=batch_size))
    before = measure(runner, records, batch_size)
    kept = [x.name for x in maps if x.error is not None and x.error > max_error]
    quantize_maps(runner.module, skip=kept)
    after = measure(runner, records, batch_size)
    return QuantizeReport(
        bytes_before=size,
        bytes_after=weight_bytes(runner.module),
        max_error=max_error,
        maps=maps,
        kept=kept,
        before=before,
        after=after,
        difference=paired_difference(before.scores, after.scores),
    )


def measure(runner: Any, records: Sequence[Any], batch_size: int) -> Quality:
    """Evaluate a model on groups of records; the score is the first of its job's."""
    groups = max(1, min(GROUPS, len(records) // LEAST_GROUP))
    evaluations = [runner.evaluate(records[i::groups], batch_size=batch_size) for i in range(groups)]
    scores = [evaluation.scores for evaluation in evaluations]
    seconds = sum(evaluation.seconds for evaluation in evaluations)
    return Quality(scores[0]._fields[0], [float(x[0]) for x in scores], len(records), seconds)


def weight_bytes(module: nn.Module) -> int:
    """Bytes of a module's tensors, shared ones once."""
    return sum({x.data_ptr(): x.nbytes for x in module.state_dict().values()}.values())
