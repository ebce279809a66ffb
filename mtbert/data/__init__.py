"""The model's input: prepared arrays, token streams and batches."""
