"""Evaluations by published protocols."""
