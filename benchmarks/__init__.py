"""Speed and memory: one command each, figures side by side in one run."""

from incontext.cli.common import reuse_freed_memory

reuse_freed_memory()  # as `incontext` does
