"""What does regard's attention give models of `transformers`, everything else untouched?

The same model with random weights, in the same precision: attn_implementation "sdpa" against "regard", in alternation,
at inference. Each answer is checked against the model in float64 first, and each plan for the pattern it must have.
"""

import argparse
import copy
import statistics
from collections.abc import Callable
from typing import Any

import torch
from bench_accelerate import gain, race
from common import spread, worst, write
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, MistralConfig

import regard as rg
from regard.integrations.plans import plans

WINDOW = 256  # keys that a token sees, itself included


def bert(tokens: int) -> BertConfig:
    """BERT-base, for texts of so many tokens."""
    return BertConfig(max_position_embeddings=tokens)


def mistral(tokens: int) -> MistralConfig:
    """A small one: 4 layers of 512, 8 heads of 64 to 2 of keys."""
    return MistralConfig(
        vocab_size=8000, hidden_size=512, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=tokens, sliding_window=WINDOW, use_cache=False,
    )  # fmt: skip


# name, configuration, texts, tokens, the pattern of every layer, and the least gain in float32
Case = tuple[str, Callable[[int], Any], int, int, str, float]
CASES: list[Case] = [
    ("BERT-base", bert, 4, 512, "Full()", 1.05),
    ("BERT-base", bert, 1, 2048, "Full()", 1.2),
    ("a window of 256 in a small Mistral", mistral, 1, 8192, "SlidingWindow(left=255) & Causal()", 2.4),
]


def made(config: Any, attention: str, dtype: torch.dtype) -> nn.Module:
    """The model with one attention or another, the same weights for both."""
    torch.manual_seed(0)
    model: nn.Module = AutoModel.from_config(copy.deepcopy(config), attn_implementation=attention)
    return model.eval().to(dtype)


def compare(case: Case, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """One race."""
    name, configure, texts, tokens, pattern, bar = case
    config = configure(tokens)
    ids = torch.randint(0, config.vocab_size, (texts, tokens), generator=torch.Generator().manual_seed(1))
    theirs, ours, exact = (
        made(config, "sdpa", dtype),
        made(config, "regard", dtype),
        made(config, "sdpa", torch.float64),
    )

    def run(model: nn.Module) -> Tensor:
        return model(ids).last_hidden_state

    with plans() as collected:
        found = run(ours)
    wrong = {str(plan.call.spec.pattern) for plan in collected} - {pattern}
    if wrong or len(collected) != config.num_hidden_layers:
        raise SystemExit(f"{name}: {len(collected)} attentions with the patterns {wrong}: nothing to time")
    answer = run(exact)
    error, their_error = worst(found, answer), worst(run(theirs), answer)
    if error > 2 * their_error:
        raise SystemExit(f"{name}, {dtype}: an error of {error}, theirs {their_error}: nothing to time")
    del exact, answer
    before, after = race(lambda: run(theirs), lambda: run(ours), repeats)
    return {
        "case": f"{name} of transformers, {texts} x {tokens} tokens, {dtype}: SDPA / regard inside, attention alone",
        "unit": "times",
        "value": gain(before, after),
        "bar": bar if dtype == torch.float32 else None,
        "at_least": True,
        "shape": [texts, tokens],
        "dtype": str(dtype).removeprefix("torch."),
        "times": {"sdpa": spread(before), "regard": spread(after)},
        "tokens_a_second": {
            "sdpa": round(1e3 * texts * tokens / statistics.median(before)),
            "regard": round(1e3 * texts * tokens / statistics.median(after)),
        },
        "backends": sorted({plan.backend for plan in collected}),
        "error": error,
        "error_of_sdpa": their_error,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="try the script out, in less than a minute")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="all cores by default")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rg.integrate_transformers()
    cases = CASES
    if given.quick:  # an eighth of the tokens
        cases = [(n, c, b, tokens // 8, p, bar) for n, c, b, tokens, p, bar in CASES]
    repeats = 2 if given.quick else 9
    with torch.inference_mode():
        results = (compare(case, dtype, repeats) for dtype in (torch.float32, torch.bfloat16) for case in cases)
        write("inside", results, quick=given.quick)


if __name__ == "__main__":
    main()
