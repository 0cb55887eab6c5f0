"""Models, one file a paper: configuration, then module."""
