"""How a published checkpoint wants its targets looked for: what config.json and generation_config.json say of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from regard.attention.check import is_integer, show
from regard.decode.search import Beam, Greedy, Search
from regard.errors import ConfigError, UnsupportedError, nearest

# Fields that decide the tokens, and the only values that are supported; None is as good as a field that is not there.
ONLY: dict[str, tuple[Any, ...]] = {
    "do_sample": (False,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "diversity_penalty": (0.0,),
    "num_beam_groups": (1,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "penalty_alpha": (0.0,),
    "guidance_scale": (1.0,),
    "renormalize_logits": (False,),
    "force_bos_token_to_be_generated": (False,),
    "early_stopping": (False, True),
    "forced_bos_token_id": (),
    "forced_decoder_ids": (),
    "begin_suppress_tokens": ([],),
    "sequence_bias": (),
    "exponential_decay_length_penalty": (),
    "constraints": (),
}


@final
@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a checkpoint wants.

    Args:
        search: how targets are looked for.
        max_length: tokens of a target at most, `eos` among them; None if it does not say.
        prefix: what stands before each text.
    """

    search: Search
    max_length: int | None
    prefix: str


def wish(fields: Mapping[str, Any], task: str | None = None) -> Wish:
    """What the fields of a checkpoint say, for one of its tasks.

    Args:
        fields: of config.json and generation_config.json.
        task: a key of its "task_specific_params", whose fields go before the others; None for none.

    Returns:
        What it wants.

    Raises:
        ConfigError: a task that it does not name.
        UnsupportedError: a field that decides the tokens, and whose value is not supported.
    """
    said = {**fields, **_task(fields, task)}
    for name, supported in ONLY.items():
        x = said.get(name)
        if x is not None and not any(x == one and type(x) in (type(one), int, float) for one in supported):
            expected = " or ".join(map(repr, (*supported, None)))
            raise UnsupportedError(
                f"the checkpoint asks for {name}={show(x)}, which is not supported; expected {expected}. Say how "
                "targets are looked for yourself: search=Beam(4), --beam 4, --greedy"
            )
    size, penalty = said.get("num_beams") or 1, said.get("length_penalty")
    beam = Beam(
        size=size,
        length_penalty=1.0 if penalty is None else penalty,
        early_stopping=said.get("early_stopping") is True,
        forced_eos=said.get("forced_eos_token_id") is not None,
    )
    return Wish(search=Greedy() if beam.size == 1 else beam, max_length=_length(said), prefix=said.get("prefix") or "")


def _task(fields: Mapping[str, Any], task: str | None) -> Mapping[str, Any]:
    known = fields.get("task_specific_params")
    known = known if isinstance(known, dict) else {}
    if task is None:
        return {}
    if not isinstance(known.get(task), dict):
        raise ConfigError(f"the checkpoint has no task {task!r}; {nearest(task, known) if known else 'it names none'}")
    found: dict[str, Any] = known[task]
    return found


def _length(said: Mapping[str, Any]) -> int | None:
    """The greatest length; the field max_length counts the start mark as well."""
    new, whole = said.get("max_new_tokens"), said.get("max_length")
    if is_integer(new) and new > 0:
        return int(new)
    return int(whole) - 1 if is_integer(whole) and whole > 1 else None
