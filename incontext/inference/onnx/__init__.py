"""Inference in onnxruntime: numpy from file to file, without torch."""
