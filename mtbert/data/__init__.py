"""What the model is fed: prepared arrays, tokens and batches."""
