"""Speed, side by side with the libraries a reader would otherwise use; one command each: `python -m benchmarks.NAME`."""
