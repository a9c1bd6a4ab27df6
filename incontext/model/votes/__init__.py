"""The model of votes: example pixels vote by frozen and learned features."""
