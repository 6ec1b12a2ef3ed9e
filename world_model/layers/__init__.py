"""What the models are built of: ST blocks, position biases, patches, codebooks, and the autoencoder of two of them."""
