"""Evaluation: `python -m eval NAME …`."""
