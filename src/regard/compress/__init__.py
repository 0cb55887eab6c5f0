"""Smaller and faster models: quantization to int8, with a report of size, speed and quality."""
