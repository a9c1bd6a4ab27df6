"""Data for training: sets of images with labels, and the episodes drawn from them."""
