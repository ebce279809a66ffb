"""Multitask minBERT with parameter-efficient fine-tuning."""
