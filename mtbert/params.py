"""params.yaml -> typed and strict: an unknown, missing or contradictory key is an error that names it.

Profile and predecessors are resolved first (`mtbert.resolve`), then everything is checked against the models of `mtbert.settings`.
"""

import re
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from mtbert.errors import MtbertError, nearest
from mtbert.params_errors import explain_all
from mtbert.resolve import resolve
from mtbert.settings import Budget, Compute, Data, Encoder, Prepare, Run, Section
from mtbert.yamlfile import read_yaml

PARAMS_FILE = Path("params.yaml")
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
RESERVED_RUN_NAMES = {"pretrained", "converted"}


class Params(Section):
    profile: str
    budget: Budget
    data: Data
    prepare: Prepare
    encoder: Encoder
    compute: Compute
    tables: dict[str, dict[str, str]]
    figures: dict[str, dict[str, str]]
    runs: dict[str, Run] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_agree(self) -> "Params":
        for kind, name in [("profiles", self.profile), *(("runs", name) for name in self.runs)]:
            if not NAME.fullmatch(name) or name in RESERVED_RUN_NAMES:
                raise ValueError(
                    f"{kind}.{name}: a name is lower-case letters, digits and _, starts with a letter, "
                    f"and is none of {', '.join(sorted(RESERVED_RUN_NAMES))}"
                )
        for name, run in self.runs.items():
            if run.adapter and run.adapter.start_from != "pretrained":
                self._check_start(name, run, run.adapter.start_from)
        for kind in ("tables", "figures"):
            for view, rows in getattr(self, kind).items():
                for row, run_name in rows.items():
                    if run_name not in self.runs:
                        raise ValueError(
                            f"{kind}.{view}.{row}: no run is called {run_name!r}{nearest(run_name, list(self.runs))}; "
                            "correct the name or remove the row"
                        )
        return self

    def _check_start(self, name: str, run: Run, start: str) -> None:
        where = f"runs.{name}.adapter.start_from"
        if start not in self.runs:
            raise ValueError(f"{where}: no run is called {start!r}{nearest(start, ['pretrained', *self.runs])}")
        if start == name or self.runs[start].adapter is not None:
            raise ValueError(f"{where}: {start!r} must be a fully fine-tuned run; an adapter starts from plain weights")
        if any(getattr(run, key) != getattr(self.runs[start], key) for key in ("quora", "sts", "pooling", "encoding")):
            raise ValueError(f"{where}: {start!r} has other heads, pooling or encoding than {name}")

    def run(self, name: str) -> Run:
        """The run called `name`; an unknown name is an error with the nearest valid one."""
        if name not in self.runs:
            raise MtbertError(f"params.yaml: no run is called {name!r}{nearest(name, list(self.runs))}")
        return self.runs[name]


def load_params(path: Path = PARAMS_FILE, profile: str | None = None) -> Params:
    """Read and check the whole of params.yaml, every profile of it.

    Args:
        profile: the profile to take instead of the one that the file names.

    Raises:
        MtbertError: the file is missing, is not YAML, or has unknown, missing, mistyped or contradictory keys; every
            such key is named, an unknown one with its nearest valid neighbour.
    """
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise MtbertError(
            f"{path}: expected sections (profile, profiles, {', '.join(Params.model_fields)}), found {type(tree).__name__}"
        )
    params = _checked(path, tree, profile)
    for other in tree["profiles"]:
        if other != params.profile:
            _checked(path, tree, other)
    return params


def _checked(path: Path, tree: dict[str, Any], profile: str | None) -> Params:
    try:
        resolved = resolve(tree, profile)
    except MtbertError as error:
        raise MtbertError(f"{path}: {error}") from None
    try:
        return Params.model_validate(resolved.settings)
    except ValidationError as error:
        lines = explain_all(error.errors(), Params, resolved.settings, resolved.place)
        raise MtbertError("\n".join(f"{path}: {line}" for line in lines)) from None
