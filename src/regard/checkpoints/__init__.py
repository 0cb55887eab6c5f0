"""Trained models as files, and as objects that do their job."""
