"""Evaluation: what examples are worth, measured on labelled images."""
