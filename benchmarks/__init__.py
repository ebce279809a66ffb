"""Speed, side by side with the libraries a reader would otherwise use; one command each: `python -m benchmarks.NAME`."""

import os

# Cases share a process, and with it the matrix library's memory of compiled products, 1,024 unless told: they would push each other's
# out, and compile anew at every turn what a process of their own keeps. To be said before torch is imported.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
