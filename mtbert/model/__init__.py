"""Sections 4.1 and 4.2: encoder, pooling, features and heads."""
