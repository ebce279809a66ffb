"""Pretrained encoders: sources, families, translation into our names, checks, and a model's folder on disk."""
