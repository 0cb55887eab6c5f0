"""Internals of a call: checks, call cache, tracing, custom op, and the tiled computation."""
