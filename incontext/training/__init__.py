"""Training: recipe, objective, trainer, finetuning, validation."""
