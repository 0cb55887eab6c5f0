"""Decoding: greedy search, sampling and beam search over any model with `prefill` and `step`."""
