"""How a published checkpoint wants its texts to be looked for: generation_config.json, or an old config.json, says it.

Every field of the transformers package's GenerationConfig is in one of the tables here: it is read, or refused unless
its value changes nothing, or irrelevant. docs/checkpoints.md is made of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from regard.attention.check import is_integer, show
from regard.decode.constraints import Constraints
from regard.decode.search import Beam, Greedy, Sample, Search
from regard.errors import ConfigError, UnsupportedError, nearest

# Fields that are read, and what they are here.
MARKS = {
    "bos_token_id": "the vocabulary's start mark",
    "decoder_start_token_id": "the token that targets start with",
    "eos_token_id": "the end mark, or a list of them",
    "pad_token_id": "the vocabulary's padding",
}
LENGTHS = {
    "max_length": "the greatest length, the prompt or start mark counted",
    "max_new_tokens": "the greatest length without them; before `max_length`",
    "min_length": "`Constraints.min_length`",
    "min_new_tokens": "`Constraints.min_new_tokens`",
}
SEARCH = {
    "do_sample": "`Sample`, in which `top_k` is 50 if it is not said; not with `num_beams`",
    "temperature": "`Sample.temperature`",
    "top_k": "`Sample.top_k`",
    "top_p": "`Sample.top_p`",
    "min_p": "`Sample.min_p`",
    "num_beams": "`Beam.size`; 1 for `Greedy`",
    "num_return_sequences": "`Beam.n_best`; 1 in other searches",
    "length_penalty": "`Beam.length_penalty`",
    "early_stopping": "`Beam.early_stopping`",
}
RULES = {
    "repetition_penalty": "`Constraints.repetition_penalty`",
    "no_repeat_ngram_size": "`Constraints.no_repeat_ngram_size`",
    "bad_words_ids": "`Vocabulary.never`; of several tokens, `Constraints.bad_words`",
    "suppress_tokens": "`Vocabulary.never`, `Constraints.suppress_tokens`",
    "begin_suppress_tokens": "`Constraints.begin_suppress_tokens`",
    "forced_bos_token_id": "`Constraints.forced_bos`",
    "forced_eos_token_id": "`Constraints.forced_eos`",
    "renormalize_logits": "`Constraints.renormalize`",
}
TEXTS = {"stop_strings": "`stop`, before which a language model's text ends; refused of an encoder-decoder"}
READ = {**LENGTHS, **SEARCH, **RULES, **TEXTS, **MARKS}
# Fields that change the tokens, and the values that are supported; None is as good as a field that is not there.
ONLY: dict[str, tuple[Any, ...]] = {
    "max_time": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "diversity_penalty": (0.0,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0.0,),
    "guidance_scale": (1.0,),
    "dola_layers": (),
    "force_bos_token_to_be_generated": (False,),
    "force_words_ids": (),
    "forced_decoder_ids": (),
    "sequence_bias": (),
    "exponential_decay_length_penalty": (),
    "constraints": (),
    "token_healing": (False,),
    "watermarking_config": (),
}
# The same of those that change the tokens in sampling alone.
ONLY_IN_SAMPLING: dict[str, tuple[Any, ...]] = {
    "typical_p": (1.0,),
    "top_h": (),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
}
ASSISTED = "of guessing by a second model, which changes no token"
SPEED = "of speed and memory"
RETURNED = "of what the package's `generate` returns"
NOTE = "a note"
IRRELEVANT = {
    **dict.fromkeys(
        (
            "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",
            "prompt_lookup_num_tokens", "max_matching_ngram_size", "assistant_early_exit", "assistant_lookbehind",
            "target_lookbehind", "assistant_ensemble_weight", "speculation_type", "use_mtp",
        ),
        ASSISTED,
    ),
    **dict.fromkeys(
        (
            "use_cache", "cache_implementation", "cache_config", "max_cache_len", "compile_config", "disable_compile",
            "continuous_batching_config", "low_memory", "prefill_chunk_size", "return_legacy_cache",
        ),
        SPEED,
    ),
    **dict.fromkeys(
        (
            "output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate",
        ),
        RETURNED,
    ),
    "transformers_version": NOTE,
    "remove_invalid_values": "numbers that are not finite are an error here",
}  # fmt: skip
NEW_TOKENS = 64  # of a language model at most, where neither the caller nor the checkpoint says it
TOP_K = 50  # of the package's sampling, where no file says it
GENERATION_FIELDS = frozenset({*READ, *ONLY, *ONLY_IN_SAMPLING, *IRRELEVANT})


@final
@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """What a checkpoint wants.

    Args:
        search: how texts are looked for.
        constraints: rules for their tokens.
        max_length: tokens of a text at most, its prompt or start mark counted; None if it does not say.
        max_new_tokens: the same without them; before `max_length`.
        prefix: what stands before each text.
        stop: strings before which a text ends.
    """

    search: Search = Greedy()
    constraints: Constraints = Constraints()
    max_length: int | None = None
    max_new_tokens: int | None = None
    prefix: str = ""
    stop: tuple[str, ...] = ()

    def limit(self, before: int) -> int | None:
        """Tokens that may be written after so many, 0 or less if there is no room; None if the checkpoint is silent."""
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        return None if self.max_length is None else self.max_length - before


def generation_config(
    fields: Mapping[str, Any], task: str | None = None, *, search: Search | None = None
) -> GenerationConfig:
    """What the fields of a checkpoint say, for one of its tasks.

    Args:
        fields: of config.json and generation_config.json.
        task: a key of its "task_specific_params", whose fields go before the others; None for none.
        search: one that goes before the checkpoint's; what the checkpoint says of its own search, and cannot be met,
            is then no error.

    Returns:
        What it wants.

    Raises:
        ConfigError: a task that it does not name, or a value that is out of range.
        UnsupportedError: a field that decides the tokens, and whose value is not supported.
    """
    said = {name: x for name, x in {**fields, **_task(fields, task)}.items() if x is not None}
    return GenerationConfig(
        search=_search(said) if search is None else search,
        constraints=_constraints(said),
        max_length=_count(said, "max_length"),
        max_new_tokens=_count(said, "max_new_tokens"),
        prefix=said.get("prefix") or "",
        stop=_stop(said),
    )


def _search(said: Mapping[str, Any]) -> Search:
    """The search that the fields describe, if regard has it."""
    sampling = _flag(said, "do_sample")
    for name, supported in {**ONLY, **(ONLY_IN_SAMPLING if sampling else {})}.items():
        if name in said and not any(said[name] == x and type(said[name]) in (type(x), int, float) for x in supported):
            _refuse(name, said[name], " or ".join(map(repr, (*supported, None))))
    size, several = said.get("num_beams", 1), said.get("num_return_sequences", 1)
    if sampling and size != 1:
        _refuse("do_sample", True, f"False with num_beams={show(size)}")
    if several != 1 and size == 1:
        _refuse("num_return_sequences", several, "1 without num_beams")
    if sampling:
        names = ("temperature", "top_p", "min_p")
        return Sample(top_k=said.get("top_k", TOP_K) or None, **{name: said[name] for name in names if name in said})
    if size == 1:
        return Greedy()
    names = ("length_penalty", "early_stopping")
    return Beam(size=size, n_best=several, **{name: said[name] for name in names if name in said})


def _refuse(name: str, x: object, expected: str) -> None:
    raise UnsupportedError(
        f"the checkpoint asks for {name}={show(x)}, which is not supported; expected {expected}. Say how texts are "
        "looked for yourself: search=Beam(4), --beam 4, --greedy"
    )


def _constraints(said: Mapping[str, Any]) -> Constraints:
    names = ("min_length", "min_new_tokens", "repetition_penalty", "no_repeat_ngram_size")
    words = (word if isinstance(word, list) else [word] for word in _list(said, "bad_words_ids"))
    return Constraints(
        **{name: said[name] for name in names if name in said},
        bad_words=tuple(map(tuple, words)),
        suppress_tokens=tuple(_list(said, "suppress_tokens")),
        begin_suppress_tokens=tuple(_list(said, "begin_suppress_tokens")),
        forced_bos=_token(said, "forced_bos_token_id"),
        forced_eos=_token(said, "forced_eos_token_id"),
        renormalize=_flag(said, "renormalize_logits"),
    )


def _flag(said: Mapping[str, Any], name: str) -> bool:
    x = said.get(name, False)
    if not isinstance(x, bool):
        raise ConfigError(f"the checkpoint says {name}={show(x)}; expected true or false")
    return x


def _list(said: Mapping[str, Any], name: str) -> list[Any]:
    x = said.get(name, [])
    if not isinstance(x, list):
        raise ConfigError(f"the checkpoint says {name}={show(x)}; expected a list")
    return x


def _token(said: Mapping[str, Any], name: str) -> Any:
    """The token of a field, which may be a list of one."""
    x = said.get(name)
    if isinstance(x, list) and len(x) != 1:
        raise UnsupportedError(f"the checkpoint asks for {name}={show(x)}, which is not supported; expected one token")
    return x[0] if isinstance(x, list) else x


def _task(fields: Mapping[str, Any], task: str | None) -> Mapping[str, Any]:
    known = fields.get("task_specific_params")
    known = known if isinstance(known, dict) else {}
    if task is None:
        return {}
    if not isinstance(known.get(task), dict):
        raise ConfigError(f"the checkpoint has no task {task!r}; {nearest(task, known) if known else 'it names none'}")
    found: dict[str, Any] = known[task]
    for name, x in found.items():
        if name != "prefix" and name not in GENERATION_FIELDS and x is not None:
            raise UnsupportedError(f"the checkpoint's task {task!r} says {name}={show(x)}, which is not known")
    return found


def _count(said: Mapping[str, Any], name: str) -> int | None:
    x = said.get(name)
    if x is not None and not (is_integer(x) and x > 0):
        raise ConfigError(f"the checkpoint says {name}={show(x)}; expected a number of tokens above 0")
    return x


def _stop(said: Mapping[str, Any]) -> tuple[str, ...]:
    x = said.get("stop_strings", [])
    strings = [x] if isinstance(x, str) else x
    if not isinstance(strings, list) or not all(isinstance(one, str) and one for one in strings):
        raise ConfigError(f"the checkpoint says stop_strings={show(x)}; expected a string or a list of them")
    return tuple(strings)
