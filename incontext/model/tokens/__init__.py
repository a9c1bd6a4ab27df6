"""The model of tokens: SegGPT with its encoder, ensemble and decoder."""
