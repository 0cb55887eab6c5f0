"""Peak learning rate of each architecture where a user gives none.

One table, so that `regard train --model NAME` learns with no other option. `benchmarks/bench_recipes.py` measured the
rates: the best of a grid, which is not at its edge, after 250,000 target tokens.
"""

DEFAULT_RATE = 1e-3
RATES: dict[str, float] = {"rnn": 8e-3, "luong": 8e-3, "transformer": 3e-3, "convs2s": 3e-3}


def learning_rate_of(model: str) -> float:
    """The peak learning rate of an architecture that is trained from random weights.

    Args:
        model: its name, a key of `MODELS`.

    Returns:
        Its own rate, or `DEFAULT_RATE`.
    """
    return RATES.get(model, DEFAULT_RATE)
