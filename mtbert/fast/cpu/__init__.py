"""The encoder on a CPU: passes between the matrix products as C++ kernels, bf16 copies of weights, and an optimizer in one pass."""
