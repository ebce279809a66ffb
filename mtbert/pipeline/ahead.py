"""Count the tokens of training that is still to be done: of one run, and of all runs that are not trained yet."""

import json
from collections.abc import Iterable

import numpy as np

from mtbert.data.arrays import Split, load_split
from mtbert.data.batches import views_for
from mtbert.pipeline.paths import MODELS, PREPARED
from mtbert.pipeline.plans import PLAN, planned
from mtbert.pipeline.provenance import RECORD, plan_hash
from mtbert.settings import Run
from mtbert.training.progress import Overall
from mtbert.training.sampling import epoch_schedule


def overall(run_name: str) -> Overall:
    """A run's place among all runs of params.yaml: how many are trained already, and the tokens of the others."""
    names = sorted(path.stem for path in (PLAN / "train").glob("*.json"))
    waiting = [name for name in names if name != run_name and not _trained(name)]
    return Overall(len(names) - len(waiting) - 1, len(names), sum(map(_tokens, waiting)))


def views_of(run: Run) -> dict[str, tuple[str, ...]]:
    """The sequences of an example that each task's head reads, as `MultitaskModel.views` gives them."""
    return {task: views_for(objective.inputs) for task, objective in run.heads.items()}


def row_tokens(split: Split, views: Iterable[str], max_tokens: int) -> np.ndarray:
    """Tokens of each row, (R,) int64, summed over the views; special tokens count, filler does not."""
    first = np.diff(split.offsets1)
    second = np.zeros_like(first) if split.offsets2 is None else np.diff(split.offsets2)
    tokens = {"u": first + 2, "v": second + 2, "c": first + second + 3}
    total: np.ndarray = np.sum([np.minimum(tokens[view], max_tokens) for view in views], axis=0)
    return total


def _trained(name: str) -> bool:
    try:
        made = json.loads((MODELS / name / RECORD).read_text(encoding="utf-8"))["plan"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(made == plan_hash(planned("train", name)))


def _tokens(name: str) -> int:
    """An estimate: the mean length of each task's examples times the examples of the first epoch, for every epoch."""
    settings = planned("train", name)["settings"]
    run = Run.model_validate(settings["run"])
    views, data = views_of(run), {task: load_split(PREPARED, run.known[task], "train") for task in run.tasks}
    sizes: dict[str, int] = {task: len(data[task]) for task in run.tasks}
    means: dict[str, float] = {
        task: float(row_tokens(data[task], views[task], settings["max_tokens"]).mean()) for task in run.tasks
    }
    epoch = epoch_schedule(sizes, run.batch_size, run.sampler, run.epoch_end, run.seed, 0)
    return round(run.epochs * sum(means[task] * len(rows) for task, rows in epoch))
