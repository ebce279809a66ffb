"""Read a stage's plan, which the plan stage wrote."""

import json
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError, nearest

PLAN = Path("build/plan")
_read: dict[Path, str] = {}  # the plans that this process has read, with their text


def planned(stage: str, name: str = "") -> dict[str, Any]:
    """The `settings` and `code` of a stage, or of one of its runs, tables or figures.

    Raises:
        MtbertError: the plan is missing or damaged, or has no run, table or figure of that name.
    """
    path = PLAN / stage / f"{name}.json" if name else PLAN / f"{stage}.json"
    try:
        text = path.read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
        _read.setdefault(path, text)
        return {"settings": found["settings"], "code": found["code"]}
    except FileNotFoundError:
        names = sorted(file.stem for file in path.parent.glob("*.json")) if name else []
        if not names:
            raise MtbertError(f"{path}: not found; run `dvc repro plan`") from None
        kind = {"table": "table", "figure": "figure"}.get(stage, "run")
        raise MtbertError(f"params.yaml: no {kind} is called {name!r}{nearest(name, names)}") from None
    except (OSError, ValueError, KeyError) as error:
        raise MtbertError(f"{path}: cannot be read ({error}); run `dvc repro --force --single-item plan`") from None


def check_unchanged() -> None:
    """Check that the plans this process has read are still the same.

    DVC records a stage's inputs after the stage has run. If another command rewrote the plan meanwhile, outputs of the old plan would
    pass for those of the new one.

    Raises:
        MtbertError: a plan has changed; DVC then records nothing.
    """
    for path, text in _read.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise MtbertError(
                f"{path}: changed while this stage ran, since settings or code were edited and another command planned again; "
                "run the same command again"
            )
