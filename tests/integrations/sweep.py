"""Every model type of `transformers` with attn_implementation="regard": as with "eager", refused by name, or wrong.

`python -m tests.integrations.sweep RESULTS.jsonl` goes over all types of the installed version, takes up again what it
left, and writes docs/integrations_models.md; `... RESULTS.jsonl bert gpt2` over some, and writes no page.
"""

import json
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

import regard as rg
from regard.errors import UnsupportedError
from regard.integrations.plans import plans
from tests.integrations.tiny import (
    BATCH,
    LENGTH,
    WAYS,
    Tiny,
    build,
    model_class,
    model_types,
    run,
    tiny,
    tiny_config,
    told,
)  # fmt: skip

PAGE = Path(__file__).resolve().parents[2] / "docs" / "integrations_models.md"
SECONDS = 90  # for one type
ALLOWED = 1e-5  # of the largest output: some layers compute in float32 whatever their inputs are
Outcome = Literal["same", "refused", "wrong", "not built"]
MEANING = {
    "same": "the numbers of eager attention",
    "refused": "an UnsupportedError that names the class, when the model is made",
    "wrong": "other numbers, or an error of another kind",
    "not built": "no tiny model of it could be made here, and nothing is said of it",
}


class Verdict(NamedTuple):
    """What became of a model type."""

    model_type: str
    kind: str  # the class
    outcome: Outcome
    calls: int  # attentions that regard computed
    difference: float  # the largest, as a share of the largest output
    why: str  # where nothing was compared


class TimeIsUp(BaseException):
    """Not an error that the library's code may catch."""


@contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Raises TimeIsUp in the block."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def verdict(model_type: str) -> Verdict:
    """What becomes of a model type with regard's attention."""
    rg.integrate_transformers()
    name = ""
    try:
        with limit(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind = model_class(model_type)
            name = kind.__name__
            if (refusal := refused(model_type, kind)) is not None:
                return Verdict(model_type, name, "refused", 0, 0.0, refusal)
            return compared(model_type, tiny(model_type))
    except LookupError as error:
        return Verdict(model_type, name, "not built", 0, 0.0, str(error))
    except TimeIsUp:
        return Verdict(model_type, name, "not built", 0, 0.0, f"takes more than {SECONDS} s")


def refused(model_type: str, kind: Any) -> str | None:
    """The class that is refused when a model is made, the model's own or a part's; None if none is."""
    for way in WAYS:
        try:
            with torch.device("meta"):
                kind._from_config(tiny_config(model_type, way), attn_implementation="regard")
            return None
        except UnsupportedError as error:
            return str(error).removeprefix('attn_implementation="regard": ').partition(" ")[0]
        except Exception:  # noqa: BLE001, S112 - whatever a library's code raises at an odd configuration
            continue
    return None


def compared(model_type: str, small: Tiny) -> Verdict:
    """The outputs of both attentions, without padding and with."""
    theirs, ours = (build(small.kind, small.config, name).to(small.dtype) for name in ("eager", "regard"))
    name, worst, count = small.kind.__name__, 0.0, 0
    for inputs in small.inputs:
        try:
            expected = run(theirs, inputs)
        except Exception:  # noqa: BLE001, S112 - a mask that the model does not take
            continue
        try:
            with plans() as collected:
                found = run(ours, inputs)
        except UnsupportedError as error:
            return Verdict(model_type, name, "refused", 0, 0.0, str(error))
        except Exception as error:  # noqa: BLE001 - it ran with the other attention
            return Verdict(model_type, name, "wrong", count, 0.0, told(error))
        count += len(collected)
        worst = max(worst, difference(found, expected, inputs))
    return Verdict(model_type, name, "same" if worst <= ALLOWED else "wrong", count, worst, "")


def difference(found: Sequence[Tensor], expected: Sequence[Tensor], inputs: Mapping[str, Any]) -> float:
    """The largest difference of outputs as a share of the largest output; padding does not count."""
    if [x.shape for x in found] != [x.shape for x in expected]:
        return float("inf")
    mask, worst = inputs.get("attention_mask"), 0.0
    for mine, theirs in zip(found, expected, strict=True):
        real = theirs.isfinite()
        if mask is not None and theirs.shape[:2] == (BATCH, LENGTH):
            real &= mask.bool().reshape(BATCH, LENGTH, *(1,) * (theirs.dim() - 2))
        if not bool(real.any()):
            continue
        gap = (mine[real] - theirs[real]).abs().max() / theirs[real].abs().max().clamp(min=1e-3)
        worst = max(worst, float("inf") if gap.isnan() else float(gap))
    return worst


def page(verdicts: Sequence[Verdict]) -> str:
    """The results in Markdown."""
    import transformers

    by_outcome = {name: [one for one in verdicts if one.outcome == name] for name in MEANING}
    counts = "\n".join(f"| {name} | {len(some)} | {MEANING[name]} |" for name, some in by_outcome.items())
    lines = [
        "# Models of transformers with regard's attention",
        "",
        f'Every model type of transformers {transformers.__version__} with `attn_implementation="regard"`, as a tiny',
        'random model against `"eager"`: without a mask, and with padding on either side where it reads tokens. This',
        "page is written by `python -m tests.integrations.sweep RESULTS.jsonl`.",
        "",
        "| result | model types | what it means |",
        "| --- | --- | --- |",
        counts,
        "",
        "A type without attention of its own, or whose tiny model never came to one, has 0 calls of `attend`. The",
        "difference is the largest of any output, as a share of the largest number in it.",
        "",
        "| model type | class | result | calls of `attend` | difference, or why |",
        "| --- | --- | --- | --- | --- |",
    ]
    order = list(MEANING)
    for one in sorted(verdicts, key=lambda one: (order.index(one.outcome), one.model_type)):
        last = f"{one.difference:.0e}" if one.outcome == "same" else one.why or f"{one.difference:.2g}"
        lines.append(f"| {one.model_type} | {one.kind} | {one.outcome} | {one.calls} | {cell(last)} |")
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Text that a table takes as text."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")[:120]


def main(results: str, *types: str) -> None:
    """Go over types that the file of results lacks."""
    import transformers

    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    path = Path(results)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    done = {row[0]: Verdict(*row) for row in map(json.loads, lines)}
    wanted = types or model_types()
    with path.open("a", encoding="utf-8") as file:
        for model_type in wanted:
            if model_type not in done:
                done[model_type] = verdict(model_type)
                file.write(json.dumps(done[model_type]) + "\n")
                file.flush()
                print(*done[model_type])
    if not types:
        PAGE.write_text(page([done[one] for one in wanted]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
