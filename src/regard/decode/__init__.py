"""Targets token by token, from any model that can step: greedy, sampling and beam search."""
