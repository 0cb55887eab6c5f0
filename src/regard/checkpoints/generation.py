"""Generation settings of published checkpoints, from generation_config.json or an old config.json.

Every field of the transformers package's GenerationConfig is in one of the tables here: it is read, refused unless its
value changes nothing, or irrelevant. The tables of docs/checkpoints.md are generated from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from regard.attention.check import is_integer, show
from regard.decode.constraints import Constraints
from regard.decode.search import Beam, Greedy, Sample, Search
from regard.errors import ConfigError, UnsupportedError, nearest

# Fields that are read, and the settings they become.
MARKS = {
    "bos_token_id": "start token of the vocabulary",
    "decoder_start_token_id": "start token of targets",
    "eos_token_id": "end token, or a list of end tokens",
    "pad_token_id": "padding token of the vocabulary",
}
LENGTHS = {
    "max_length": "maximum length, prompt or start token included",
    "max_new_tokens": "maximum length without them; takes precedence over `max_length`",
    "min_length": "`Constraints.min_length`",
    "min_new_tokens": "`Constraints.min_new_tokens`",
}
SEARCH = {
    "do_sample": "`Sample`, with a default `top_k` of 50; not with `num_beams`",
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
TEXTS = {"stop_strings": "`stop`, of language models; refused in encoder-decoders"}
SPEECH = {
    "alignment_heads": "layers and heads of cross-attention that word times come from",
    "is_multilingual": "whether a text starts with tokens of its language and task",
    "lang_to_id": "languages and their tokens",
    "task_to_id": "tasks and their tokens",
    "no_timestamps_token_id": "token of a text without times; those of times follow it",
    "max_initial_timestamp_index": "latest time of the first segment, in steps of 0.02 s",
}
READ = {**LENGTHS, **SEARCH, **RULES, **TEXTS, **SPEECH, **MARKS}
# Supported values of fields of which others are refused; None is the same as a missing field.
SUPPORTED: dict[str, tuple[Any, ...]] = {
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
# The same, for fields that only affect sampling.
SUPPORTED_IN_SAMPLING: dict[str, tuple[Any, ...]] = {
    "typical_p": (1.0,),
    "top_h": (),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
}
ASSISTED = "assisted generation, which changes no token"
SPEED = "speed and memory only"
RETURNED = "what the package's `generate` returns"
NOTE = "metadata"
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
    **dict.fromkeys(
        ("language", "task", "return_timestamps", "prev_sot_token_id", "prompt_ids", "condition_on_prev_tokens"),
        "speech: chosen when it is transcribed",
    ),
    "transformers_version": NOTE,
    "remove_invalid_values": "NaN is an error here",
}  # fmt: skip
NEW_TOKENS = 64  # default maximum of a language model's generated tokens
TOP_K = 50  # the package's default in sampling
GENERATION_FIELDS = frozenset({*READ, *SUPPORTED, *SUPPORTED_IN_SAMPLING, *IRRELEVANT})


@final
@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Generation settings of a checkpoint.

    Args:
        search: greedy search, sampling or beam search.
        constraints: on the tokens.
        max_length: maximum number of tokens, prompt or start token included; None if not specified.
        max_new_tokens: maximum number of generated tokens; takes precedence over `max_length`.
        prefix: text that is put before each source.
        stop: strings before which a text ends.
    """

    search: Search = Greedy()
    constraints: Constraints = Constraints()
    max_length: int | None = None
    max_new_tokens: int | None = None
    prefix: str = ""
    stop: tuple[str, ...] = ()

    def limit(self, before: int) -> int | None:
        """The maximum number of generated tokens after a prompt.

        Args:
            before: tokens of the prompt, or of the target's start.

        Returns:
            Tokens, 0 or less if the prompt is too long; None if the checkpoint sets no maximum.
        """
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        return None if self.max_length is None else self.max_length - before


def generation_config(
    fields: Mapping[str, Any], task: str | None = None, *, search: Search | None = None
) -> GenerationConfig:
    """The generation settings of a checkpoint, for one of its tasks.

    Args:
        fields: of config.json and generation_config.json.
        task: a key of "task_specific_params", whose fields override the others; None for none.
        search: a search that replaces the checkpoint's, whose fields are then not checked; None for the checkpoint's.

    Returns:
        The settings.

    Raises:
        ConfigError: an unknown task, or a value that is out of range.
        UnsupportedError: a field that affects the tokens, with a value that is not supported.
    """
    fields = {name: x for name, x in {**fields, **_task(fields, task)}.items() if x is not None}
    return GenerationConfig(
        search=_search(fields) if search is None else search,
        constraints=_constraints(fields),
        max_length=_count(fields, "max_length"),
        max_new_tokens=_count(fields, "max_new_tokens"),
        prefix=fields.get("prefix") or "",
        stop=_stop(fields),
    )


def _search(fields: Mapping[str, Any]) -> Search:
    """The search that the fields describe; raises UnsupportedError if regard does not have it."""
    sampling = _flag(fields, "do_sample")
    for name, values in {**SUPPORTED, **(SUPPORTED_IN_SAMPLING if sampling else {})}.items():
        if name in fields and not any(
            fields[name] == x and type(fields[name]) in (type(x), int, float) for x in values
        ):
            _refuse(name, fields[name], " or ".join(map(repr, (*values, None))))
    size, n_best = fields.get("num_beams", 1), fields.get("num_return_sequences", 1)
    if sampling and size != 1:
        _refuse("do_sample", True, f"False with num_beams={show(size)}")
    if n_best != 1 and size == 1:
        _refuse("num_return_sequences", n_best, "1 without num_beams")
    if sampling:
        names = ("temperature", "top_p", "min_p")
        settings = {name: fields[name] for name in names if name in fields}
        return Sample(top_k=fields.get("top_k", TOP_K) or None, **settings)
    if size == 1:
        return Greedy()
    names = ("length_penalty", "early_stopping")
    return Beam(size=size, n_best=n_best, **{name: fields[name] for name in names if name in fields})


def _refuse(name: str, x: object, expected: str) -> None:
    raise UnsupportedError(
        f"the checkpoint asks for {name}={show(x)}, which is not supported; expected {expected}. Choose a search "
        "yourself: search=Beam(4), --beam 4, --greedy"
    )


def _constraints(fields: Mapping[str, Any]) -> Constraints:
    names = ("min_length", "min_new_tokens", "repetition_penalty", "no_repeat_ngram_size")
    words = (word if isinstance(word, list) else [word] for word in _list(fields, "bad_words_ids"))
    return Constraints(
        **{name: fields[name] for name in names if name in fields},
        bad_words=tuple(map(tuple, words)),
        suppress_tokens=tuple(_list(fields, "suppress_tokens")),
        begin_suppress_tokens=tuple(_list(fields, "begin_suppress_tokens")),
        forced_bos=_token(fields, "forced_bos_token_id"),
        forced_eos=_token(fields, "forced_eos_token_id"),
        renormalize=_flag(fields, "renormalize_logits"),
    )


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    x = fields.get(name, False)
    if not isinstance(x, bool):
        raise ConfigError(f"the checkpoint has {name}={show(x)}; expected true or false")
    return x


def _list(fields: Mapping[str, Any], name: str) -> list[Any]:
    x = fields.get(name, [])
    if not isinstance(x, list):
        raise ConfigError(f"the checkpoint has {name}={show(x)}; expected a list")
    return x


def _token(fields: Mapping[str, Any], name: str) -> Any:
    """The token id in a field, which may also be a list of one id."""
    x = fields.get(name)
    if isinstance(x, list) and len(x) != 1:
        raise UnsupportedError(f"the checkpoint asks for {name}={show(x)}, which is not supported; expected one token")
    return x[0] if isinstance(x, list) else x


def _task(fields: Mapping[str, Any], task: str | None) -> Mapping[str, Any]:
    """The fields of a task in "task_specific_params"; none if the task is None."""
    tasks = fields.get("task_specific_params")
    tasks = tasks if isinstance(tasks, dict) else {}
    if task is None:
        return {}
    if not isinstance(tasks.get(task), dict):
        raise ConfigError(
            f"the checkpoint has no task {task!r}; {nearest(task, tasks) if tasks else 'it has no tasks'}"
        )
    task_fields: dict[str, Any] = tasks[task]
    for name, x in task_fields.items():
        if name != "prefix" and name not in GENERATION_FIELDS and x is not None:
            raise UnsupportedError(f"the checkpoint's task {task!r} has the unknown field {name}={show(x)}")
    return task_fields


def _count(fields: Mapping[str, Any], name: str) -> int | None:
    x = fields.get(name)
    if x is not None and not (is_integer(x) and x > 0):
        raise ConfigError(f"the checkpoint has {name}={show(x)}; expected a number of tokens above 0")
    return x


def _stop(fields: Mapping[str, Any]) -> tuple[str, ...]:
    x = fields.get("stop_strings", [])
    strings = [x] if isinstance(x, str) else x
    if not isinstance(strings, list) or not all(isinstance(one, str) and one for one in strings):
        raise ConfigError(f"the checkpoint has stop_strings={show(x)}; expected a string or a list of strings")
    return tuple(strings)
