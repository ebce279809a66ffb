"""What the stages share: where things are, plans, provenance, models from settings, and what a profile will cost."""
