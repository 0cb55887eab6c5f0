"""regard's operator inside other libraries' models."""
