"""Checkpoints: saving and loading of models, and published checkpoints of the Hugging Face hub."""
