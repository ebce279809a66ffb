"""Training runs on a machine without a network: a bundle takes everything there, and brings the results into the graph.

`pack` writes the bundle, `remote` runs in it on the other machine, `take` checks the results and hands them to DVC.
"""

MANIFEST = "bundle.json"  # in the bundle and beside its results: commit, profile, runs, fp16, python, hash of the prepared data
CHECKSUM = ".sha256"  # the end of the name of a file beside an archive, as sha256sum writes it
LOG = ".mtbert/log/train-{run}.json"  # the last file that training writes
