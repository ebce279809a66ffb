"""Section 4.5: LoRA and DoRA, and the functions that put them into a model and merge them."""
