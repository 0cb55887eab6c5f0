"""Integrations: regard's attention in models of other libraries."""
