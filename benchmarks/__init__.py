"""Benchmarks of speed against the libraries that a reader would otherwise use: `python -m benchmarks.NAME`."""

import os

# All cases share a process, and with it the matrix library's cache of compiled products, of 1,024 entries by default.
# With so few they would evict each other's entries and compile again in every round. The variable must be set before
# torch is imported.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
