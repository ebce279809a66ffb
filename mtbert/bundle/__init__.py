"""Training runs on a machine without a network: a bundle takes everything there, and brings the results into the graph.

`pack` writes the bundle, `remote` runs in it on the other machine, `take` checks the results and hands them to DVC. A run is named RUN,
or STUDY/RUN if it is one of a study.
"""

from pathlib import Path

MANIFEST = "bundle.json"  # in the bundle and beside its results: commit, profile, runs, fp16, python, hash of the prepared data
CHECKSUM = ".sha256"  # the end of the name of a file beside an archive, as sha256sum writes it
LOG = ".mtbert/log/train-{run}.json"  # the last file that training writes
PROJECT = Path()


def place(run: str) -> tuple[Path, str]:
    """The folder of a run's graph, the project's or a study's, and the run's name there. Paths of the graph are relative to the folder."""
    study, _, name = run.rpartition("/")
    return Path("studies") / study if study else PROJECT, name
