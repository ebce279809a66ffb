"""Section 5.1: tasks, reading, cleaning, tokens and batches."""
