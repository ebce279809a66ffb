"""Write the plan: for each stage and run, a file with its settings from params.yaml and the checksums of its code."""

import json
import os
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError
from mtbert.files import atomic_json, replaced_folder, sha256_file
from mtbert.params import PARAMS_FILE, Params, load_study
from mtbert.pipeline.code import code_of_stages
from mtbert.pipeline.paths import METRICS, MODELS, PLOTS, PREPARED, RAW, REPORTS, RESULTS, confine
from mtbert.pipeline.plans import PLAN
from mtbert.settings.run import Model, Run

# The stages of studies/study.yaml; a study takes data and encoder from the project.
STUDY_STAGES = ("convert", "train", "evaluate", "statistics", "table", "figure", "provenance")


def refresh(params: Params) -> None:
    """Write the plan for these settings and the present code, unless it is up to date."""
    check_paths(params)
    views = [REPORTS / params.profile / kind for kind in ("tables", "figures")]
    confine(*views)
    _write(settings_of_stages(params), Path())
    for folder in views:  # the report depends on both, and without any table or figure no stage makes them
        folder.mkdir(parents=True, exist_ok=True)


def refresh_study(study: Path, project: Path) -> Params:
    """Write a study's plan into its folder, unless it is up to date.

    Args:
        study: its folder.
        project: the project's root, which has the code.

    Returns:
        The study's settings.

    Raises:
        MtbertError: as `load_study`.
    """
    params, root = load_study(study / PARAMS_FILE, project / PARAMS_FILE), project.resolve()
    titles = {run: row for rows in params.tables.values() for row, run in rows.items()}
    provenance = {"profile": params.profile, "titles": {run: titles.get(run, run) for run in params.runs}}
    found = {**settings_of_stages(params), "provenance": provenance}
    with chdir(study):
        _write({name: part for name, part in found.items() if name.partition("/")[0] in STUDY_STAGES}, root)
    return params


def _write(settings_of: Mapping[str, Any], root: Path) -> None:
    confine(PLAN)
    if not (root / "stages/train.py").is_file():
        raise MtbertError(f"{root.resolve()}: no stages/train.py here; run from the project's root")
    code = {stage: {file: sha256_file(root / file) for file in files} for stage, files in code_of_stages(root).items()}
    plan = {
        f"{name}.json": {"settings": settings, "code": code[name.partition("/")[0]]}
        for name, settings in settings_of.items()
    }
    if _written() != plan:
        with replaced_folder(PLAN) as folder:
            for name, part in plan.items():
                atomic_json(folder / name, part)


def _written() -> dict[str, Any]:
    try:
        return {path.relative_to(PLAN).as_posix(): json.loads(path.read_bytes()) for path in PLAN.rglob("*.json")}
    except (OSError, ValueError):
        return {}


def settings_of_stages(params: Params) -> dict[str, Any]:
    """The settings that each stage reads, by STAGE or STAGE/NAME."""
    data = params.data.model_dump()
    keys = {"sample": ("source", "sample"), "folder": ("source", "path"), "download": ("source",)}[params.data.source]
    tasks = {name: task.model_dump(exclude_none=True) for name, task in params.tasks.items()}
    if tasks:  # declared tasks are read from data.path, whatever data.source is
        keys = (*keys, "path")
    shared = {"max_tokens": params.prepare.max_tokens, "compute": params.compute.model_dump()}
    about = {"preprocess": params.prepare.preprocess, "source": params.data.source}  # for the model's card
    views = {"tables": params.tables, "figures": params.figures}
    plan: dict[str, Any] = {
        "fetch": {**{key: data[key] for key in keys}, "tasks": tasks},
        "encoder": _encoder(params),
        "prepare": {**params.prepare.model_dump(), "tasks": tasks},
        "statistics": {"profile": params.profile, "runs": list(params.runs), "seeds": params.seeds},
        "report": {
            "profile": params.profile,
            "runs": list(params.runs),
            "predecessors": params.predecessors,
            "seeds": params.seeds,
            "tasks": tasks,
            **views,
        },
    }
    for name, run in params.runs.items():
        plan[f"convert/{name}"] = _converted(run)
        plan[f"train/{name}"] = {"run": run.model_dump(), **shared, **about}
        if run.start_run:  # so that an edit of the run that an adapter starts from also trains the adapter again
            plan[f"train/{name}"]["start_run"] = params.runs[run.start_run].model_dump()
        plan[f"evaluate/{name}"] = {"run": run.model_dump(), **shared}
    for stage, kind in (("table", params.tables), ("figure", params.figures)):
        for name, rows in kind.items():
            plan[f"{stage}/{name}"] = {"profile": params.profile, "rows": rows}
    return plan


def check_paths(params: Params) -> None:
    """Reject a path that does not resolve in the temporary workspaces where DVC runs queued experiments, a folder that is not there,
    and one that contains a stage's outputs or lies inside them. DVC's own errors about these name no key.

    A folder in the project may be missing: DVC takes what it tracks there from its cache.
    """
    outputs = (RAW, PREPARED, MODELS, RESULTS, METRICS, PLOTS, REPORTS, PLAN.parent)
    for key, path in (("data.path", params.data.path), ("encoder.path", params.encoder.path)):
        full = Path(os.path.realpath(os.path.expanduser(path)))  # noqa: PTH111 - unlike Path.expanduser, it does not raise
        for output in outputs:
            if full.is_relative_to(output.resolve()) or output.resolve().is_relative_to(full):
                raise MtbertError(
                    f"params.yaml: {key}: {path} and {output}, which stages write, overlap; name another folder"
                )
        outside = Path.cwd().resolve() not in full.parents
        if path.startswith("~") or (outside and not Path(path).is_absolute()):
            raise MtbertError(f"params.yaml: {key}: DVC cannot find {path} from every workspace; write {key}: {full}")
        if outside and not full.is_dir():
            raise MtbertError(f"params.yaml: {key}: there is no folder {path}; correct the path")


def _encoder(params: Params) -> dict[str, Any]:
    keys = {"local": {"path"}, "random": {"random"}}.get(params.encoder.source, {"name", "revision"})
    return params.encoder.model_dump(include={"source", "sha256", *keys}, exclude_none=True)


def _converted(run: Run) -> dict[str, Any]:
    """The settings of convert; empty where it has nothing to do, so that no edit of such a run re-runs the stage."""
    converted = run.adapter and not run.start_run
    return {"model": run.model_dump(include=set(Model.model_fields)) if converted else None}
