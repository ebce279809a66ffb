"""Reading what the plan stage wrote for a stage."""

import json
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError, nearest

PLAN = Path("build/plan")


def planned(stage: str, name: str = "") -> dict[str, Any]:
    """`settings` and `code` of a stage, and of one run, table or figure where it has several.

    Raises:
        MtbertError: nothing of that name is planned, or the plan is missing or damaged.
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
