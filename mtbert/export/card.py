"""The model card of an export: the trained model's own, with how the export is used and how good it is."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtbert.export.registry import Export
from mtbert.files import atomic_write_text
from mtbert.pipeline.card import CARD, card
from mtbert.pipeline.paths import RESULTS
from mtbert.pipeline.provenance import EVALUATION


def write_card(
    export: Export,
    folder: Path,
    library: str,
    use: Sequence[str],
    tasks: Sequence[str],
    pipeline: str = "text-classification",
) -> None:
    """Write the card of an export.

    Args:
        library: the one that loads it.
        use: the lines that show how.
        tasks: those of the model that are in it.
        pipeline: what the hub calls its kind of task.
    """
    metrics = _metrics(export)
    text = card(export.name, export.config, use=use, metrics=metrics, library=library, pipeline=pipeline, tasks=tasks)
    atomic_write_text(folder / CARD, text)


def _metrics(export: Export) -> dict[str, Any]:
    """What `evaluate` found of exactly these weights, by dev and test; empty if its results are not at hand."""
    results = export.model.folder.resolve().parent.parent / RESULTS / export.name
    try:
        evaluation = json.loads((results / EVALUATION).read_text(encoding="utf-8"))
        if export.config["sha256"] not in [parent["sha256"] for parent in evaluation["parents"]]:
            return {}
        found = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
        return {part: found[part] for part in ("dev", "test") if found.get(part)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
