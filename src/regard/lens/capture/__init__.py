"""How calls of attention are seen in any torch module, while it runs as it always runs."""
