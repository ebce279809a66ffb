"""Bring the results of a bundle's runs into the graph, if they were made from the inputs that the graph has now."""

import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtbert.bundle import MANIFEST
from mtbert.errors import MtbertError
from mtbert.files import atomic_json, replaced_folder, scratch_folder
from mtbert.params import load_params
from mtbert.pipeline.models import parents_of, weights_of
from mtbert.pipeline.paths import METRICS, MODELS, PLOTS, RESULTS, confine
from mtbert.pipeline.planning import refresh
from mtbert.pipeline.plans import PLAN, planned
from mtbert.pipeline.provenance import EVALUATION, RECORD, data_hash, differences, plan_hash, read_sealed
from mtbert.pretrained.store import WEIGHTS, read_config
from mtbert.seal import check_seal
from mtbert.settings import Run
from mtbert.training.work import work_root


def main(folder: Path) -> None:
    """Check the results of all runs in `folder`, put them into models, results, plots and metrics, and record them with `dvc commit`.

    Raises:
        MtbertError: a result is damaged, was made from other inputs, or DVC fails. Before the last, nothing was changed.
    """
    params = load_params()
    refresh(params)
    manifest = _manifest(folder)
    archives = sorted((folder / "runs").glob("*.tar.gz"))
    if not archives:
        raise MtbertError(f"{folder / 'runs'}: no run has finished there; run the bundle again, with more --minutes")
    with scratch_folder(PLAN.parent / "taken") as scratch:
        found = {}
        for archive in archives:
            run = archive.name.removesuffix(".tar.gz")
            if run not in params.runs:
                raise MtbertError(f"{archive}: params.yaml has no run {run}; add it as it was, or move the file away")
            found[run] = _unpacked(archive, scratch / run)
            _check(run, params.runs[run], found[run], archive, manifest["commit"])
        for run, source in found.items():
            _install(run, source, manifest["commit"])
    stages = [f"{stage}@{run}" for run in found for stage in ("train", "evaluate")]
    done = subprocess.run([sys.executable, "-m", "dvc", "commit", "--quiet", "--force", *stages])
    if done.returncode:
        raise MtbertError(f"DVC does not record the results; run `dvc commit --force {' '.join(stages)}`")
    bare = [run for run in found if not (MODELS / run / WEIGHTS).is_file()]
    print(f"taken: {', '.join(found)}. `dvc repro` makes the report of them without training them again.")
    if bare:
        print(
            f"Without weights, for the report and comparisons only: {', '.join(bare)}; `--weights` there brings them too."
        )


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MtbertError(
            f"{folder / MANIFEST}: cannot be read ({error}); name the folder that run.sh wrote its results to"
        ) from None
    if found["fp16"]:
        raise MtbertError(
            f"{folder / MANIFEST}: these runs started from weights that `mtbert bundle --fp16` rounded, so they are not this graph's; "
            "pack again without --fp16, and train again"
        )
    return found


def _unpacked(archive: Path, to: Path) -> Path:
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(to, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise MtbertError(f"{archive}: damaged ({error}); copy it from the other machine again") from None
    return to


def _check(run: str, settings: Run, source: Path, archive: Path, commit: str) -> None:
    """Compare what a run was trained and evaluated from with what the graph has now."""
    confine(MODELS / run, RESULTS / run, PLOTS / f"{run}.csv", METRICS / f"{run}.json")
    again = f"copy {archive} from the other machine again"
    weights = read_config(source / MODELS / run, again)["sha256"]
    check_seal(source / RESULTS / run)
    parents = [weights_of(folder) for folder in parents_of(settings, run)]
    trained = {"plan": plan_hash(planned("train", run)), "data": data_hash(), "parents": parents, "weights": weights}
    evaluated = {
        "plan": plan_hash(planned("evaluate", run)),
        "data": data_hash(),
        "parents": [{"folder": str(MODELS / run), "sha256": weights}],
    }
    for file, now in ((MODELS / run / RECORD, trained), (RESULTS / run / EVALUATION, evaluated)):
        made: Mapping[str, Any] = read_sealed(source / file, again)
        if found := differences(made, now):
            raise MtbertError(
                f"{archive}: {run} was not made from this graph's inputs: {'; '.join(found)}; restore settings, code and data as they "
                f"were when the bundle was packed ({commit}), or pack again and train again"
            )


def _install(run: str, source: Path, commit: str) -> None:
    for path in (MODELS / run, RESULTS / run):
        with replaced_folder(path) as folder:
            for file in sorted((source / path).rglob("*")):
                if file.is_file():
                    to = folder / file.relative_to(source / path)
                    to.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(to)
    for path in (PLOTS / f"{run}.csv", METRICS / f"{run}.json"):
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)  # DVC makes its outputs read-only links
        (source / path).replace(path)
    log = f"log/train-{run}.json"
    made = json.loads((source / ".mtbert" / log).read_text(encoding="utf-8"))
    atomic_json(work_root(Path.cwd()) / log, {**made, "commit": commit})  # there it was not under git
