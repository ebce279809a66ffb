"""Sections 5.2 and 6.1: predictions, metrics and their analysis."""
