"""Sections 5.4 and 6: tables, figures and the page, made from JSON and CSV files."""
