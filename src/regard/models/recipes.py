"""Peak learning rate of each architecture where a user gives none.

One table, so that `regard train --model NAME` learns with no other option.
"""

DEFAULT_RATE = 1e-3
# Screened by benchmarks/bench_recipes.py: small models, 250,000 target tokens; the best rate has worse neighbors.
RATES: dict[str, float] = {"rnn": 8e-3, "luong": 8e-3}


def learning_rate_of(model: str) -> float:
    """The peak learning rate of an architecture that is trained from random weights.

    Args:
        model: its name, a key of `MODELS`.

    Returns:
        Its own rate, or `DEFAULT_RATE`.
    """
    return RATES.get(model, DEFAULT_RATE)
