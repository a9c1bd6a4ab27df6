"""Batches: folders of any size, their records and engines."""
