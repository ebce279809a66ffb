"""Pretrained encoders: where they come from, their names and ours, a model's folder on disk."""
