"""Inference: examples, prompts, the predictor and what it returns."""
