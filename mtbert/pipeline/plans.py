"""Read a stage's plan, which the plan stage wrote."""

import json
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError, nearest

PLAN = Path("build/plan")


def planned(stage: str, name: str = "") -> dict[str, Any]:
    """The `settings` and `code` of a stage, or of one of its runs, tables or figures.

    Raises:
        MtbertError: the plan is missing or damaged, or has no run, table or figure of that name.
    """
    path = PLAN / stage / f"{name}.json" if name else PLAN / f"{stage}.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {"settings": found["settings"], "code": found["code"]}
    except FileNotFoundError:
        names = sorted(file.stem for file in path.parent.glob("*.json")) if name else []
        if not names:
            raise MtbertError(f"{path}: not found; run `dvc repro plan`") from None
        kind = {"table": "table", "figure": "figure"}.get(stage, "run")
        raise MtbertError(f"params.yaml: no {kind} is called {name!r}{nearest(name, names)}") from None
    except (OSError, ValueError, KeyError) as error:
        raise MtbertError(f"{path}: cannot be read ({error}); run `dvc repro --force --single-item plan`") from None
