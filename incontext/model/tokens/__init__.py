"""The token model: SegGPT with its encoder, ensemble and decoder."""
