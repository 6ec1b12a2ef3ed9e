"""GenieRedux-G in PyTorch: tokenizer, dynamics, decoding, uncertainty and checkpoints. Needs no Ray."""
