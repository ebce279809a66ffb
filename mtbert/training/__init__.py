"""Sections 4.3 and 4.4: samplers, losses, the loop and its checkpoints."""
