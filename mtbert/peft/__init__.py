"""Section 4.5: DoRA, LoRA and twelve other methods, and the functions that put them into a model and merge them."""
