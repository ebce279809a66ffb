"""Pack the project, its prepared inputs and the packages that it needs into a bundle of few files.

A bundle is made only when everything before training is up to date. The other machine then trains from the same inputs that DVC has here,
so `take` can tell whether its results are those of this graph.
"""

import hashlib
import io
import json
import operator
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import chdir
from functools import reduce
from pathlib import Path
from typing import Any

from safetensors.torch import save

from mtbert.bundle import MANIFEST, PROJECT, place
from mtbert.bundle.packages import HERE, collect
from mtbert.errors import MtbertError, nearest
from mtbert.files import replaced_folder
from mtbert.params import PARAMS_FILE, Params, load_params, study_file
from mtbert.pipeline.cost import longest_first
from mtbert.pipeline.paths import CONVERTED, PREPARED, PRETRAINED
from mtbert.pipeline.planning import refresh_study
from mtbert.pipeline.plans import PLAN, planned
from mtbert.pipeline.provenance import commit, data_hash
from mtbert.pretrained.store import WEIGHTS, load_model
from mtbert.training.aggregation import requirements
from mtbert.workflow.graph import stale_jobs

SCRIPT = "run.sh"
CODE = ("mtbert", "stages", "benchmarks", "tests", "requirements", str(PARAMS_FILE), "dvc.yaml", "pyproject.toml")
EARLY = {"plan", "fetch", "encoder", "prepare"}
RUN_SH = """\
#!/usr/bin/env bash
# Written by `mtbert bundle`. On the other machine: bash run.sh [--help]. Unpacks itself into /tmp; needs no network.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
work=${TMPDIR:-/tmp}/mtbert-{name}
if [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" != {python} ]; then
    echo "error: this bundle is for Python {python}; set PYTHON to one, or pack again with --python" >&2; exit 1
fi
if [ ! -e "$work/complete" ]; then
    for part in {parts}; do
        [ -e "$here/$part" ] || { echo "error: $here/$part: not found; copy all parts of the bundle here" >&2; exit 1; }
    done
    [ "$(cd "$here" && cat {parts} | sha256sum | cut -c1-12)" = {name} ] ||
        { echo "error: $here: the parts are damaged or incomplete; copy them again" >&2; exit 1; }
    mkdir -p "$(dirname "$work")"
    fresh=$(mktemp -d "$work.XXXXXX") # of its own, since another run.sh may do the same now
    trap 'rm -rf "$fresh"' EXIT
    (cd "$here" && cat {parts}) | "$python" -c '
import sys, tarfile
tar = tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz")
tar.extraction_filter = getattr(tarfile, "tar_filter", None)  # from Python 3.11.4 on
tar.extractall(sys.argv[1])' "$fresh"
    touch "$fresh/complete"
    mv -T "$fresh" "$work" 2>/dev/null || rm -rf "$fresh" # the other was first
    [ -e "$work/complete" ] || { echo "error: $work: incomplete, or another user's; remove it, or set TMPDIR to another folder" >&2; exit 1; }
fi
export OUT=${OUT:-$here/results} PYTHONPATH=$work/project:$work/first:$work/hook
cd "$work/project"
exec "$python" -m mtbert.bundle.remote "$@"
"""
# The machine's own packages come first, except for those that `arrange` puts into the folder `first`.
HOOK = """\
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "site"))
"""


class Parts(io.RawIOBase):
    """A stream that is written to files of limited size, part-1, part-2 and so on."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size, self._left = folder, size, 0
        self.names: list[str] = []
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view, done = memoryview(data).cast("B"), 0
        self.digest.update(view)
        while done < len(view):
            if not self._left:
                self.names.append(f"part-{len(self.names) + 1}")
                self._left = self._size
            taken = view[done : done + self._left]
            with (self._folder / self.names[-1]).open("ab") as file:
                file.write(taken)
            done, self._left = done + len(taken), self._left - len(taken)
        return done


def main(
    dest: Path,
    runs: Sequence[str] = (),
    studies: Sequence[str] = (),
    *,
    fp16: bool = False,
    more: Sequence[str] = (),
    python: str | None = None,
    megabytes: int = 60,
) -> None:
    """Write the bundle into `dest`, and print what to do with it.

    Args:
        dest: a new folder, or one that an earlier call wrote.
        runs: what to train; by default, if there are no `studies`, all runs that are not trained and evaluated yet.
        studies: folders of `studies`, all of whose runs are to be trained too.
        fp16: round the encoder's weights, which halves the bundle; `take` refuses what is trained from them.
        more: further packages to carry.
        python: the other machine's version; by default this one's.
        megabytes: the largest size of a file.

    Raises:
        MtbertError: a stage before training is not up to date, a run or study is unknown, a package is missing, or `dest` has
            results.
    """
    if dest.exists() and not (dest / SCRIPT).is_file():
        raise MtbertError(f"{dest}: exists and is no bundle; name a new folder")
    if (dest / "results").exists():
        raise MtbertError(
            f"{dest / 'results'}: would be deleted; `mtbert take` it and move it away, then give the same command again"
        )
    python = python or HERE
    params = load_params()
    chosen = _chosen(params, runs, studies)
    about = {"commit": commit(), "profile": params.profile, "runs": chosen, "fp16": fp16, "python": python}
    manifest = about | {"prepared": data_hash([PREPARED])}
    with replaced_folder(dest) as folder, tempfile.TemporaryDirectory() as scratch:
        site = Path(scratch) / "site"
        site.mkdir()
        collect(site, [*more, *_packages_of(chosen)], python)
        parts = Parts(folder, megabytes * 1_000_000)
        with tarfile.open(fileobj=parts, mode="w|xz", dereference=True) as tar:
            tar.add(site, "site")
            _add(tar, "hook/sitecustomize.py", HOOK.encode())
            _add(tar, f"project/{MANIFEST}", json.dumps(manifest, indent=2).encode())
            _add_project(tar, chosen, fp16)
        (folder / SCRIPT).write_text(_script(parts, python), encoding="utf-8")
        (folder / SCRIPT).chmod(0o755)
    size = sum(file.stat().st_size for file in dest.iterdir())
    print(
        f"{dest}: {size / 1e6:.0f} MB in {len(parts.names)} parts, for Python {python}; runs: {', '.join(chosen) or 'none'}"
    )
    print(f"There: bash {dest.name}/{SCRIPT} --help. Then bring the folder `results` back: mtbert take FOLDER")


def _script(parts: Parts, python: str) -> str:
    """The text of run.sh."""
    name = parts.digest.hexdigest()[:12]
    return RUN_SH.replace("{name}", name).replace("{python}", python).replace("{parts}", " ".join(parts.names))


def _chosen(params: Params, runs: Sequence[str], studies: Sequence[str]) -> dict[str, int]:
    """What to train, and its tokens: of the project, then of each study, the runs that take longest first."""
    for run in runs:
        if run not in params.runs:
            raise MtbertError(f"--run: no run of params.yaml is called {run!r}{nearest(run, list(params.runs))}")
    dependent = {name for name, run in params.runs.items() if run.start_run}
    if named := sorted(dependent.intersection(runs)):
        raise MtbertError(
            f"--run: {named[0]} starts from another run's weights, which a bundle does not carry; train it here"
        )
    stale = {job.stage for job in stale_jobs()}
    untrained = [run for run in params.runs if stale & {f"train@{run}", f"evaluate@{run}"} and run not in dependent]
    wanted = list(runs) or ([] if studies else untrained)
    if early := sorted(stale & {*EARLY, *(f"convert@{run}" for run in wanted)}):
        raise MtbertError(
            f"{', '.join(early)}: not up to date; run `dvc repro prepare convert`, then the same command again"
        )
    return reduce(operator.or_, map(_runs_of, studies), longest_first(params, wanted))


def _runs_of(study: str) -> dict[str, int]:
    """A study's runs, those that take longest first, as STUDY/RUN, and their tokens; its plan is written."""
    params = refresh_study(study_file(study).parent, Path())
    for name, run in params.runs.items():
        if run.start_run:
            raise MtbertError(
                f"--study: {name} of {study} starts from another run's weights, which a bundle does not carry"
            )
    return {f"{study}/{run}": tokens for run, tokens in longest_first(params, list(params.runs)).items()}


def _packages_of(runs: Iterable[str]) -> list[str]:
    """The packages that some runs need beside those of all stages."""
    found: set[str] = set()
    for folder, name in map(place, runs):
        with chdir(folder):
            found.update(requirements(planned("train", name)["settings"]["run"].get("aggregation") or "mean"))
    return sorted(found)


def _add_project(tar: tarfile.TarFile, runs: Iterable[str], fp16: bool) -> None:
    places = [place(run) for run in runs]
    # Adapters are made from the encoder's weights, so of rounded ones they are made there; those of studies always are.
    made = [CONVERTED / run for folder, run in places if folder == PROJECT]
    converted = [path for path in made if not (fp16 and (path / WEIGHTS).is_file())]
    plans = dict.fromkeys([PLAN, *(folder / PLAN for folder, _ in places)])
    for path in [*CODE, *map(str, (*plans, PREPARED, *converted))]:
        if Path(path).exists():  # an installed package has no tests and benchmarks
            tar.add(path, f"project/{path}", filter=_kept)
    for file in sorted(PRETRAINED.iterdir()):
        if fp16 and file.name == WEIGHTS:
            rounded = {name: tensor.half() for name, tensor in load_model(PRETRAINED)[0].items()}
            _add(tar, f"project/{PRETRAINED / WEIGHTS}", save(rounded))
        else:
            tar.add(file, f"project/{file}", filter=_kept)


def _kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without compiled code; files of DVC's cache are read-only, but the other machine may write them."""
    entry.mode |= stat.S_IWUSR
    return None if entry.name.endswith((".pyc", "__pycache__")) else entry


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
