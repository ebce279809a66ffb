"""The encoder on CUDA in bf16: attention without padding, and whole training steps replayed from CUDA graphs."""
