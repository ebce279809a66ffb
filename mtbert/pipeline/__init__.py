"""What the stages share: where things are, plans, provenance, models from settings, and the estimate of a profile's cost."""
