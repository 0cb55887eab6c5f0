"""Misuses of decoding: see `cases.py`."""

import torch

from regard.decode.constraints import Constraints
from regard.decode.generate import generate
from regard.decode.search import Beam, Greedy, Sample
from regard.errors import CheckpointError, ConfigError, DataError
from tests.decode.toy import Toy
from tests.errors.cases import Case


def damaged() -> Toy:
    model = Toy()
    with torch.no_grad():
        model.out[0, 0] = torch.nan
    return model


CASES: list[Case] = [
    (
        "sample-temperature",
        lambda: Sample(temperature=0),
        ConfigError,
        "temperature=0 must be above 0 and finite; use Greedy() for 0",
    ),
    ("sample-top-k", lambda: Sample(top_k=0), ConfigError, "top_k=0 must be an integer >= 1 tokens, or None for all"),
    ("sample-top-p", lambda: Sample(top_p=1.5), ConfigError, "top_p=1.5 must be a probability, 0 < top_p <= 1"),
    (
        "sample-min-p",
        lambda: Sample(min_p=2),
        ConfigError,
        "min_p=2 must be a fraction, 0 <= min_p <= 1, or None for all",
    ),
    (
        "beam-early",
        lambda: Beam(early_stopping="always"),
        ConfigError,
        "early_stopping='always' must be False, True or \"never\"",
    ),
    (
        "constraints-penalty",
        lambda: Constraints(repetition_penalty=0),
        ConfigError,
        "repetition_penalty=0 must be above 0 and finite; use 1 for no penalty",
    ),
    (
        "constraints-length",
        lambda: Constraints(min_length=-1),
        ConfigError,
        "Constraints: min_length=-1 must be an integer >= 0 tokens",
    ),
    (
        "constraints-words",
        lambda: Constraints(bad_words=(3, 4)),
        ConfigError,
        "bad_words=(3, 4) must be a tuple of non-empty tuples of token ids",
    ),
    (
        "constraints-tokens",
        lambda: Constraints(suppress_tokens=[3]),
        ConfigError,
        "suppress_tokens=[3] must be a tuple of token ids",
    ),
    (
        "constraints-token",
        lambda: Constraints(forced_eos="</s>"),
        ConfigError,
        "the token id '</s>' must be an integer >= 0",
    ),
    (
        "generate-constraints",
        lambda: generate(Toy(), [[3]], constraints=Constraints(bad_words=((3, 7),))),
        ConfigError,
        "constraints have the token id 7; expected ids from 0 to 4",
    ),
    ("sample-seed", lambda: Sample(seed=-1), ConfigError, "Sample: seed=-1 must be an integer >= 0"),
    ("beam-size", lambda: Beam(0), ConfigError, "Beam: size=0 must be an integer >= 1 hypotheses"),
    ("beam-n-best", lambda: Beam(4, n_best=5), ConfigError, "n_best=5 must be at most size=4; raise size"),
    (
        "beam-penalty",
        lambda: Beam(length_penalty=float("nan")),
        ConfigError,
        "length_penalty=nan must be an exponent from -10 to 10",
    ),
    (
        "generate-search",
        lambda: generate(Toy(), [[3]], search="beam"),
        ConfigError,
        "search='beam' is not a search; known: Greedy(), Sample(), Beam()",
    ),
    ("generate-batch", lambda: generate(Toy(), [[3]], batch_size=0), ConfigError, "batch_size=0 must be an integer"),
    (
        "generate-flat",
        lambda: generate(Toy(), [3, 4]),
        DataError,
        "sources[0]=3 must be a list of token ids; for a single source pass [source]",
    ),
    (
        "generate-token",
        lambda: generate(Toy(), [[3], [4, 5]]),
        DataError,
        "sources[1] has the token id 5; expected ids from 0 to 4 without pad=0",
    ),
    ("generate-pad", lambda: generate(Toy(), [[3, 0]]), DataError, "sources[0] has the token id 0; expected ids"),
    ("generate-text", lambda: generate(Toy(), ["three"]), DataError, "sources[0] has the token id 't'; expected ids"),
    (
        "generate-length",
        lambda: generate(Toy(), [[3, 4]], max_length=lambda length: length - 2),
        ConfigError,
        "max_length=0 for a source of 2 tokens must be an integer >= 1",
    ),
    (
        "generate-damaged",
        lambda: generate(damaged(), [[3]]),
        CheckpointError,
        "log-probabilities are nan at target token 0: its weights are damaged",
    ),
    (
        "generate-damaged-greedy",
        lambda: generate(damaged(), [[3]], search=Greedy(), max_length=3),
        CheckpointError,
        "log-probabilities are nan at target token 0: its weights are damaged",
    ),
]
