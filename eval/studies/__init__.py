"""Studies of the bundled checkpoints."""
