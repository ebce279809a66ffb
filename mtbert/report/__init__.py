"""Sections 5.4 and 6: tables, figures and the page; reads JSON and CSV."""
