"""Checkpoints for elsewhere: on the Hugging Face hub, and as ONNX graphs."""
