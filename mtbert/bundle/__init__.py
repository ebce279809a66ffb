"""Training runs on a machine without a network: a bundle takes everything there, and brings the results into the graph.

`pack` writes the bundle, `remote` runs in it on the other machine, `take` checks the results and hands them to DVC. A run is named RUN,
or STUDY/RUN if it is one of a study.
"""

from pathlib import Path

MANIFEST = "bundle.json"  # in the bundle and beside its results: commit, profile, runs, fp16, python, hash of the prepared data
CHECKSUM = ".sha256"  # the end of the name of a file beside an archive, as sha256sum writes it
LOG = ".mtbert/log/train-{run}.json"  # the last file that training writes
PROJECT = Path()


def folder_of(study: str) -> Path:
    """The folder of a study, or of the project if `study` is empty; paths of its graph are relative to it."""
    return Path("studies") / study if study else PROJECT


def place(run: str) -> tuple[Path, str]:
    """The folder of a run's graph, and the run's name there."""
    study, _, name = run.rpartition("/")
    return folder_of(study), name
