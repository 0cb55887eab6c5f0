"""Every model type of `transformers` under the recorder: captured, refused by name, or wrong.

`python -m tests.lens.sweep RESULTS.jsonl` goes over all types of the installed version, takes up again what it left,
and writes docs/lens_models.md; `... RESULTS.jsonl bert gpt2` over some, and writes no page.
"""

import json
import sys
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from regard.lens.record import Recording, record
from tests.integrations.sweep import SECONDS, TimeIsUp, cell, limit
from tests.integrations.sweep import difference as differs
from tests.integrations.tiny import Tiny, build, model_class, model_types, run, tiny, told

PAGE = Path(__file__).resolve().parents[2] / "docs" / "lens_models.md"
ALLOWED = 1e-5  # of weights
IMPLEMENTATIONS = ("eager", "sdpa")
Outcome = Literal["captured", "refused", "no attention", "wrong", "not built"]
MEANING = {
    "captured": "every attention that ran; weights as `output_attentions` has them, outputs the same to the last bit",
    "refused": "attentions that the report names as not captured, with the reason; the others are captured",
    "no attention": "nothing that multiplies values by a softmax",
    "wrong": "other weights, or other outputs",
    "not built": "no tiny model of it could be made here, and nothing is said of it",
}


class Verdict(NamedTuple):
    """What became of a model type."""

    model_type: str
    kind: str  # the class
    outcome: Outcome
    attentions: int  # recorded, under each implementation together
    difference: float  # the largest of weights
    why: str


def verdict(model_type: str) -> Verdict:
    """What becomes of a model type under the recorder."""
    name = ""
    try:
        with limit(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            name = model_class(model_type).__name__
            return recorded(model_type, _tiny(model_type))
    except LookupError as error:
        return Verdict(model_type, name, "not built", 0, 0.0, str(error))
    except TimeIsUp:
        return Verdict(model_type, name, "not built", 0, 0.0, f"takes more than {SECONDS} s")


def _tiny(model_type: str) -> Tiny:
    """A tiny model; LookupError where none can be made."""
    try:
        return tiny(model_type)
    except (RuntimeError, TypeError) as error:  # of inputs that a configuration has no room for
        raise LookupError(told(error)) from error


def recorded(model_type: str, small: Tiny) -> Verdict:
    """The recorder over a model under each implementation that its class takes."""
    name, worst, count, left = small.kind.__name__, 0.0, 0, ""
    inputs = small.inputs[0]
    eager = build(small.kind, small.config, "eager").to(small.dtype)
    expected, outputs = attentions(eager, inputs), run(eager, inputs)
    for implementation in IMPLEMENTATIONS:
        try:
            model = build(small.kind, small.config, implementation).to(small.dtype)
        except (ValueError, ImportError):
            continue  # that the class does not take
        plain = run(model, inputs)
        try:
            with record(model, weights=True) as recording:
                found = run(model, inputs)
        except Exception as error:  # noqa: BLE001 - it ran without the recorder
            return Verdict(model_type, name, "wrong", count, 0.0, f"{implementation}: {error!r}"[:160])
        if not all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(found, plain, strict=True)):
            return Verdict(model_type, name, "wrong", count, 0.0, f"{implementation}: other outputs")
        count += len(recording)
        if recording.not_captured:
            path, reason = recording.not_captured[0]
            left = left or f"{implementation}: {path}: {reason}"
        if differs(plain, outputs, inputs) <= ALLOWED:  # else the library's own implementations disagree
            worst = max(worst, difference(recording, expected))
    if worst > ALLOWED:
        return Verdict(model_type, name, "wrong", count, worst, "other weights")
    if left:
        return Verdict(model_type, name, "refused", count, worst, left)
    return Verdict(model_type, name, "captured" if count else "no attention", count, worst, "")


@torch.no_grad()
def attentions(model: Any, inputs: Mapping[str, Any]) -> list[Tensor]:
    """The weights that a model itself gives when asked for them: (B, H, L, S) each."""
    torch.manual_seed(2)
    try:
        outputs = model(**inputs, output_attentions=True)
    except Exception:  # noqa: BLE001 - a model that gives none
        return []
    names = [name for name in outputs if "attentions" in name] if isinstance(outputs, Mapping) else []
    tensors = [x for name in names for x in outputs[name] or () if isinstance(x, Tensor) and x.dim() == 4]
    return [x for x in tensors if _are_weights(x)]  # ProphetNet gives scores under this name


def _are_weights(x: Tensor) -> bool:
    """Whether rows hold shares of at most 1."""
    return bool((x >= 0).all()) and bool((x.sum(-1) < 1 + 1e-3).all())


def difference(recording: Recording, expected: Sequence[Tensor]) -> float:
    """The largest difference of expected weights from the nearest recorded ones of their shape."""
    weights = [one.weights for one in recording.values() if one.mismatch is None]
    worst = 0.0
    for theirs in expected:
        same = [mine for mine in weights if mine.shape == theirs.shape]
        if theirs.shape[1] > 1 and torch.equal(
            theirs, theirs[:, :1].expand_as(theirs)
        ):  # WavLM repeats its heads' mean
            same = [mine.mean(1, keepdim=True).expand_as(mine) for mine in same]
        if same:
            worst = max(worst, min(float((mine - theirs).abs().max()) for mine in same))
    return worst


def page(verdicts: Sequence[Verdict]) -> str:
    """The results in Markdown."""
    import transformers

    by_outcome = {name: [one for one in verdicts if one.outcome == name] for name in MEANING}
    counts = "\n".join(f"| {name} | {len(some)} | {MEANING[name]} |" for name, some in by_outcome.items())
    lines = [
        "# Models of transformers under the recorder",
        "",
        f"{len(verdicts)} of the {len(model_types())} model types of transformers {transformers.__version__},",
        'in the order of their names, as tiny random models, recorded with `rg.record` under `"eager"` and `"sdpa"`.',
        "This page is written by `python -m tests.lens.sweep RESULTS.jsonl`.",
        "",
        "| result | model types | what it means |",
        "| --- | --- | --- |",
        counts,
        "",
        "| model type | class | result | attentions | largest difference of weights, or why |",
        "| --- | --- | --- | --- | --- |",
    ]
    order = list(MEANING)
    for one in sorted(verdicts, key=lambda one: (order.index(one.outcome), one.model_type)):
        last = textwrap.shorten(one.why, 110) or f"{one.difference:.0e}"
        lines.append(f"| {one.model_type} | {one.kind} | {one.outcome} | {one.attentions} | {cell(last)} |")
    return "\n".join(lines) + "\n"


def main(results: str, *types: str) -> None:
    """Go over types that the file of results lacks."""
    import transformers

    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    torch.set_num_threads(1)
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
                print(*done[model_type], flush=True)
    if not types:
        PAGE.write_text(page([done[one] for one in wanted]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
