"""Demos on public names only."""
