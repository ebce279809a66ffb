"""Reads params.yaml and checks it strictly: an unknown, missing or contradictory key is an error that names it.

`mtbert.resolve` applies the profile and inheritance, then the result is checked against the models of `mtbert.settings`.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from mtbert.errors import MtbertError, nearest
from mtbert.params_errors import explain_all
from mtbert.resolve import TOP, resolve
from mtbert.section import Contradiction, Section
from mtbert.settings.project import ComputeSettings, Data, Encoder, Prepare, Workflow
from mtbert.settings.run import Budget, Run
from mtbert.settings.task import DeclaredTask
from mtbert.tasks.paper import RESERVED, TASKS
from mtbert.yamlfile import read_yaml

PARAMS_FILE = Path("params.yaml")
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
STUDY = ("runs", "tables", "figures", "seeds")  # the sections of a study's params.yaml
VIEWS = {  # the keys of TABLES in stages/table.py and of FIGURES in stages/figure.py; importing them would take seconds
    "tables": ["table1", "table2", "table3", "table4", "scores", "pairs", "adapters"],
    "figures": [
        *("figure1", "figure2", "figure3", "figure4"),
        *("sampler_exponent", "sampler_curves", "sampler_amount", "adapters", "conflicts"),
    ],
}
RESERVED_NAMES = {"pretrained", "converted"}  # folders next to those of the runs


class Params(Section):
    profile: str
    budget: Budget
    data: Data
    prepare: Prepare
    encoder: Encoder
    compute: ComputeSettings
    workflow: Workflow = Workflow()
    tasks: dict[str, DeclaredTask]
    tables: dict[str, dict[str, str]]
    figures: dict[str, dict[str, str]]
    seeds: dict[str, list[str]]
    runs: dict[str, Run]
    predecessors: dict[str, str] = Field(exclude=True)  # what `from` of each run names; no key of the file

    @model_validator(mode="after")
    def _names_agree(self) -> "Params":
        names = [(kind, name) for kind in ("tasks", "runs", *VIEWS) for name in getattr(self, kind)]
        for kind, name in [("profiles", self.profile), *names]:
            reserved = RESERVED if kind == "tasks" else RESERVED_NAMES
            if not NAME.fullmatch(name) or name in reserved:
                raise Contradiction(
                    "a name is lower-case letters, digits and _, starts with a letter, has at most 64 characters, "
                    f"and is none of {', '.join(sorted(reserved))}; rename it",
                    kind,
                    name,
                )
        for name, run in self.runs.items():
            if run.start_run:
                self._check_start(name, run, run.start_run)
        for kind, known in VIEWS.items():
            for view, rows in getattr(self, kind).items():
                if view not in known:
                    raise Contradiction(
                        f"no {kind.removesuffix('s')} is called {view!r}{nearest(view, known)}", kind, view
                    )
                if not rows:
                    raise Contradiction("names no run; add a row (ROW: RUN), or remove it", kind, view)
                for row, name in rows.items():
                    self._check_shown(name, kind, view, row)
        for first, others in self.seeds.items():
            self._check_seeds(first, others)
        return self

    def _check_shown(self, name: str, *key: str) -> None:
        """Check that the run exists and that tables and figures can show it."""
        if name not in self.runs:
            raise Contradiction(
                f"no run is called {name!r}{nearest(name, list(self.runs))}; correct the name or remove the row", *key
            )
        if missing := [task for task in TASKS if task not in self.runs[name].heads]:
            raise Contradiction(
                f"run {name} has no head for {', '.join(missing)}, and tables and figures need all of the "
                "paper's tasks; add one, or remove the row",
                *key,
            )

    def _check_seeds(self, first: str, others: list[str]) -> None:
        """Check that the runs exist and differ in their seed alone."""
        found: dict[int, str] = {}
        for number, name in enumerate([first, *others], start=-1):
            key = ("seeds", first, *([str(number)] if number >= 0 else []))
            if name not in self.runs:
                raise Contradiction(f"no run is called {name!r}{nearest(name, list(self.runs))}", *key)
            run, reference = self.runs[name].model_dump(), self.runs[first].model_dump()
            if differing := [
                part for part in run | reference if part != "seed" and run.get(part) != reference.get(part)
            ]:
                raise Contradiction(
                    f"{name} differs from {first} in {', '.join(differing)}, not in its seed alone; let it have "
                    f"`from: {first}` and a seed, no more, or remove it here",
                    *key,
                )
            if run["seed"] in found:
                raise Contradiction(
                    f"{name} has the seed of {found[run['seed']]}; give it another, or remove it here", *key
                )
            found[run["seed"]] = name

    def _check_start(self, name: str, run: Run, start: str) -> None:
        key = ("runs", name, "adapter", "start_from")
        if start not in self.runs:
            raise Contradiction(f"no run is called {start!r}{nearest(start, ['pretrained', *self.runs])}", *key)
        if self.runs[start].adapter is not None:
            raise Contradiction(
                f"{start!r} is not a fully fine-tuned run; an adapter must start from one, or from pretrained", *key
            )
        if any(
            getattr(run, part) != getattr(self.runs[start], part)
            for part in ("heads", "pooling", "encoding", "pair_layer")
        ):
            raise Contradiction(
                f"heads, pooling, encoding or pair_layer of {start!r} differ from those of {name}; name another run",
                *key,
            )


def load_params(path: Path = PARAMS_FILE, profile: str | None = None) -> Params:
    """Read params.yaml and check it under every profile.

    Args:
        profile: the profile to use instead of the one set in the file.

    Raises:
        MtbertError: the file is missing, is not YAML, or has unknown, missing, mistyped or contradictory keys. The message
            names them all, and suggests the most similar key for an unknown one.
    """
    if project := _project_of(path):
        raise MtbertError(
            f"{path}: these are the settings of a study; run this command in the project's root, {project.parent}, with --study "
            f"{path.resolve().parent.name} if it has that option"
        )
    return _checked_under_every_profile(path, _sections(path, TOP), profile)


def load_here() -> Params:
    """The settings of the current folder: a project's root, or the folder of one of its studies.

    Raises:
        MtbertError: as `load_params` or `load_study`.
    """
    project = _project_of(PARAMS_FILE)
    return load_study(PARAMS_FILE, project) if project else load_params()


def study_file(study: str) -> Path:
    """The params.yaml of the study that the option --study names.

    Raises:
        MtbertError: there is none; suggests the most similar name.
    """
    folder = Path("studies")
    known = sorted(path.parent.name for path in folder.glob(f"*/{PARAMS_FILE}"))
    if study not in known:
        raise MtbertError(f"--study: {folder / study / PARAMS_FILE}: not found{nearest(study, known)}")
    return folder / study / PARAMS_FILE


def load_study(study: Path, project: Path = PARAMS_FILE, profile: str | None = None) -> Params:
    """Read a study's params.yaml: runs that may inherit from the project's, and tables and figures of them.

    Args:
        study, project: the two files. The study's has runs, tables, figures and seeds; all other settings are the project's.
        profile: as for `load_params`.

    Returns:
        The settings with the runs, tables, figures and seeds of the study alone.

    Raises:
        MtbertError: as `load_params`, for either file; or a run of the study has the name of one of the project's.
    """
    load_params(project, profile)
    tree, own = _sections(project, TOP), _sections(study, STUDY)
    for key in own:
        if key not in STUDY:
            raise MtbertError(
                f"{study}: unknown key {key}{nearest(str(key), STUDY)}; other settings are those of {project}, remove it here"
            )
    runs = own.get("runs")
    if not isinstance(runs, dict) or not runs:
        raise MtbertError(f"{study}: runs: expected a mapping of names to settings; add at least one")
    for name in runs:
        if name in tree["runs"]:
            raise MtbertError(f"{study}: runs.{name}: {project} has a run of that name; rename this one")
    empty: dict[str, Any] = {key: {} for key in STUDY}
    return _checked_under_every_profile(study, tree | empty | own | {"runs": tree["runs"] | runs}, profile, runs)


def _project_of(path: Path) -> Path | None:
    """The project's params.yaml if this one is a study's, studies/NAME/params.yaml; else None."""
    folder = path.resolve().parent
    project = folder.parent.parent / PARAMS_FILE
    return project if folder.parent.name == "studies" and project.is_file() else None


def _sections(path: Path, known: Collection[str]) -> dict[str, Any]:
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise MtbertError(f"{path}: expected sections ({', '.join(known)}), found {type(tree).__name__}")
    return tree


def _checked_under_every_profile(
    path: Path, tree: dict[str, Any], profile: str | None, runs: Collection[str] | None = None
) -> Params:
    params = _checked(path, tree, profile, runs)
    for other in tree["profiles"]:
        if other != params.profile:
            _checked(path, tree, other, runs)
    return params


def _checked(path: Path, tree: dict[str, Any], profile: str | None, runs: Collection[str] | None) -> Params:
    """The settings under one profile, with these runs, by default all."""
    try:
        resolved = resolve(tree, profile)
        if runs is not None:
            for section in ("runs", "predecessors"):
                found = resolved.settings[section]
                resolved.settings[section] = {name: found[name] for name in runs if name in found}
        return Params.model_validate(resolved.settings)
    except ValidationError as error:
        # A run has copies of the declared tasks it has heads for; their faults are reported under tasks.
        faults = [fault for fault in error.errors() if fault["loc"][2:3] != ("declared",)]
        lines = explain_all(faults, Params, resolved)
    except MtbertError as error:
        lines = str(error).splitlines()
    raise MtbertError("\n".join(f"{path}: {line}" for line in lines))
