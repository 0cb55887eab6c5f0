"""Backends that compute attention, each in its own module behind one protocol."""
