"""Attention of a model: recorded from a real run, measured and drawn."""
