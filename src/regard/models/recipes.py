"""Peak learning rate of each architecture where a user gives none.

One table, so that `regard train --model NAME` learns with no other option.
"""

DEFAULT_RATE = 1e-3
# Of small models on 250,000 target tokens (benchmarks/bench_recipes.py). Luong's best was 1.6e-2, by 8%; half of it
# leaves room for larger models. ConvS2S's was 1.6e-2, and of its default size, after 120 steps, 4e-3 (perplexity 415;
# 555 with half of it, 556 with twice). The Transformer's was 4e-3; it is left at the rate of the long runs.
# Conv-attention's: three rates for 100 steps on photographs of clothes (docs/log/pictures.md). Of tiny recognizers on
# the tones of tests/learn (docs/log/speech.md): 4e-3 for the listener, 2e-3 or more for the Transformer.
RATES: dict[str, float] = {
    "rnn": 8e-3,
    "luong": 8e-3,
    "convs2s": 4e-3,
    "conv-attention": 2e-3,
    "listener": 4e-3,
    "speech-transformer": 2e-3,
}


def learning_rate_of(model: str) -> float:
    """The peak learning rate of an architecture that is trained from random weights.

    Args:
        model: its name, a key of `MODELS`.

    Returns:
        Its own rate, or `DEFAULT_RATE`.
    """
    return RATES.get(model, DEFAULT_RATE)
