"""Section 4.5: adapters, and the walk that swaps them in and out."""
