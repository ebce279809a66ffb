"""The CPU's fused passes, in C++: compiled where they are first needed, replaced by torch's operations where they can't be."""
