"""Evaluation: `python -m eval NAME …`."""

from incontext.cli.common import reuse_freed_memory

reuse_freed_memory()  # as `incontext` does
