"""Bring the results of a bundle's runs into the graph, if they were made from the inputs that the graph has now."""

import json
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

from mtbert.bundle import CHECKSUM, LOG, MANIFEST, PROJECT, place
from mtbert.errors import MtbertError
from mtbert.files import atomic_json, replaced_folder, scratch_folder, sha256_file
from mtbert.params import PARAMS_FILE, Params, load_params
from mtbert.pipeline.models import parents_of
from mtbert.pipeline.paths import CONVERTED, METRICS, MODELS, PLOTS, PREPARED, RESULTS, confine
from mtbert.pipeline.planning import refresh, refresh_study
from mtbert.pipeline.plans import PLAN, planned
from mtbert.pipeline.provenance import EVALUATION, RECORD, data_hash, differences, plan_hash, read_sealed, weights_of
from mtbert.pretrained.store import CONFIG, WEIGHTS, read_config
from mtbert.seal import check_seal
from mtbert.settings.run import Run
from mtbert.training.work import work_root


def main(folder: Path) -> None:
    """Check the results of all runs in `folder`, put them into models, results, plots and metrics, and record them with `dvc commit`.

    Those of a study's runs go into the study's folder.

    Args:
        folder: its absolute path.

    Raises:
        MtbertError: a result is damaged, was made from other inputs, or DVC fails. Nothing is changed before all are checked.
    """
    manifest = _manifest(folder)
    archives: dict[Path, dict[str, Path]] = {}
    for archive in sorted((folder / "runs").rglob("*.tar.gz")):
        graph, run = place(archive.relative_to(folder / "runs").as_posix().removesuffix(".tar.gz"))
        archives.setdefault(graph, {})[run] = archive
    if not archives:
        raise MtbertError(f"{folder / 'runs'}: no run has finished there; run the bundle again, with more --minutes")
    project = Path.cwd()
    with scratch_folder(project / PLAN.parent / "taken") as scratch:
        found: dict[Path, dict[str, Path]] = {}
        for graph, of_runs in archives.items():
            params = _refreshed(graph)
            with chdir(graph):
                found[graph] = {
                    run: _checked(run, params, archive, scratch / graph / run, manifest)
                    for run, archive in of_runs.items()
                }
        for graph, of_runs in found.items():
            with chdir(graph):
                for run, source in of_runs.items():
                    _install(run, source, manifest["commit"])
    for graph, of_runs in found.items():
        _record(graph, list(of_runs))


def _refreshed(graph: Path) -> Params:
    """The settings of a graph, the project's or a study's, whose plan and inputs are brought up to date."""
    if graph == PROJECT:
        params = load_params()
        refresh(params)
        return params
    if not (graph / PARAMS_FILE).is_file():
        raise MtbertError(
            f"{graph / PARAMS_FILE}: not found, and there are results of this study; restore it, or move the results' folder "
            f"runs/{graph.name} away"
        )
    if not (graph / "dvc.yaml").exists():
        raise MtbertError(
            f"{graph}: not linked to DVC; run `ln -s ../study.yaml {graph}/dvc.yaml`, then the same command again"
        )
    params = refresh_study(graph, Path())
    if _dvc(graph, "repro", "--quiet", "inputs"):
        raise MtbertError(f"{graph}: DVC cannot make the study's inputs; run `dvc repro {graph}/dvc.yaml:inputs`")
    return params


def _checked(run: str, params: Params, archive: Path, scratch: Path, manifest: Mapping[str, Any]) -> Path:
    """Unpack a run's archive, and check it."""
    if run not in params.runs:
        raise MtbertError(f"{archive}: params.yaml has no run {run}; add it as it was, or move the file away")
    source = _unpacked(archive, scratch)
    _check_files(run, source, archive)
    _check_inputs(run, params.runs[run], source, archive, manifest)
    return source


def _record(graph: Path, runs: list[str]) -> None:
    stages = [f"{stage}@{run}" for run in runs for stage in ("train", "evaluate")]
    if _dvc(graph, "commit", "--quiet", "--force", *stages):
        raise MtbertError(
            f"{graph}: DVC does not record the results; run `dvc commit --force {' '.join(stages)}` there"
        )
    names = [run if graph == PROJECT else f"{graph.name}/{run}" for run in runs]
    target = "" if graph == PROJECT else f" {graph}/dvc.yaml"
    print(f"taken: {', '.join(names)}. `dvc repro{target}` makes the report of them without training them again.")
    bare = [name for name, run in zip(names, runs, strict=True) if not (graph / MODELS / run / WEIGHTS).is_file()]
    if bare:
        print(
            f"Without weights, for the report and comparisons only: {', '.join(bare)}; `--weights` there brings them too."
        )


def _dvc(graph: Path, *arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=graph).returncode


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not {"commit", "fp16", "prepared"} <= found.keys():
            raise ValueError("not written by `mtbert bundle` of this version")
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
        # gzip's own checksum is not read at the end of an archive.
        if archive.with_name(archive.name + CHECKSUM).read_text(encoding="utf-8").split()[:1] != [sha256_file(archive)]:
            raise _damaged(archive, f"its sha256 is not that in {archive.name}{CHECKSUM}")
        with tarfile.open(archive) as tar:
            for member in tar:
                inside = (to / member.name).resolve().is_relative_to(to.resolve())
                if not inside or not (member.isfile() or member.isdir()):
                    raise tarfile.TarError(f"{member.name}: neither a file nor a folder below this one")
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
            tar.extractall(to)
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        raise _damaged(archive, str(error)) from None
    return to


def _damaged(archive: Path, what: str) -> MtbertError:
    return MtbertError(
        f"{archive}: damaged ({what}); copy it and {archive.name}{CHECKSUM} from the other machine again, "
        "or let `run.sh train` write them again"
    )


def _check_files(run: str, source: Path, archive: Path) -> None:
    """Check that everything that is taken is there and intact."""
    for file in (PLOTS / f"{run}.csv", METRICS / f"{run}.json"):
        if not (source / file).is_file():
            raise _damaged(archive, f"no {file} in it")
    try:
        if not isinstance(json.loads((source / LOG.format(run=run)).read_text(encoding="utf-8")), dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise _damaged(archive, f"{LOG.format(run=run)}: {error}") from None
    try:
        check_seal(source / RESULTS / run)
    except MtbertError:  # it names the scratch folder, and a stage that would not help
        raise _damaged(archive, f"a file of {RESULTS / run} is missing or changed") from None
    weights = source / MODELS / run / WEIGHTS
    if weights.is_file() and sha256_file(weights) != _weights(run, source, archive):
        raise _damaged(archive, f"the sha256 of {MODELS / run / WEIGHTS} is not that in its config.json")


def _weights(run: str, source: Path, archive: Path) -> str:
    """The weights' sha256 in the model's config."""
    try:
        return str(read_config(source / MODELS / run)["sha256"])
    except MtbertError:
        raise _damaged(archive, f"{MODELS / run / CONFIG} is missing or changed") from None


def _check_inputs(run: str, settings: Run, source: Path, archive: Path, manifest: Mapping[str, Any]) -> None:
    """Compare what a run was trained and evaluated from with what the graph has now."""
    confine(MODELS / run, RESULTS / run, PLOTS / f"{run}.csv", METRICS / f"{run}.json")
    weights = _weights(run, source, archive)
    # A study converts a model in the stage that trains it, so the converted model comes with the trained one.
    parents = [
        {**weights_of(source / folder if (source / folder).is_dir() else folder), "folder": str(folder)}
        for folder in parents_of(settings, run)
    ]
    trained = {"plan": plan_hash(planned("train", run)), "data": data_hash(), "parents": parents, "weights": weights}
    evaluated = {
        "plan": plan_hash(planned("evaluate", run)),
        "data": data_hash(),
        "parents": [{"folder": str(MODELS / run), "sha256": weights}],
        "prepared": data_hash([PREPARED]),  # with the test split, which the records leave out
    }
    for file, now in ((MODELS / run / RECORD, trained), (RESULTS / run / EVALUATION, evaluated)):
        made = read_sealed(source / file, f"copy {archive} from the other machine again")
        if found := differences({**made, "prepared": manifest["prepared"]}, now):
            raise MtbertError(
                f"{archive}: {run} was not made from this graph's inputs: {'; '.join(found)}; restore settings, code and data as they "
                f"were when the bundle was packed ({manifest['commit']}), or pack again and train again"
            )


def _install(run: str, source: Path, commit: str) -> None:
    converted = [CONVERTED / run] if (source / CONVERTED / run).is_dir() else []
    for path in (*converted, MODELS / run, RESULTS / run):
        with replaced_folder(path) as folder:
            for file in sorted((source / path).rglob("*")):
                if file.is_file():
                    to = folder / file.relative_to(source / path)
                    to.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(to)
    for path in (PLOTS / f"{run}.csv", METRICS / f"{run}.json"):
        path.parent.mkdir(exist_ok=True)
        (source / path).replace(path)
    log = LOG.format(run=run)
    made = json.loads((source / log).read_text(encoding="utf-8"))
    atomic_json(work_root(Path.cwd()).parent / log, {**made, "commit": commit})  # there it was not under git
