"""Command line of regard: one file per verb, each a thin layer over the Python interface."""
