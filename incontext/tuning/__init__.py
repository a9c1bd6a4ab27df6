"""Tuning: a prompt is learned while the model stays frozen."""
