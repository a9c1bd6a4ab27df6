"""The voting model: example pixels vote by frozen and learned features."""
