"""Writing a trained model in the formats of other libraries: `mtbert export`. One file a format, and registry.py, which lists them."""
