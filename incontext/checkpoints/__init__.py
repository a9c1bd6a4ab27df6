"""Checkpoints: names, loading, saving, conversion, ONNX export."""
