"""Data for training: sets of pictures, plans, views, episodes."""
