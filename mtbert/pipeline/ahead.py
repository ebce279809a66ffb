"""Count the tokens of training that is still to be done: of one run, and of all runs that are not trained yet."""

import json

from mtbert.data.arrays import held_out_rows, load_split
from mtbert.data.batches import row_tokens, views_for
from mtbert.pipeline.paths import MODELS, PREPARED
from mtbert.pipeline.plans import PLAN, planned
from mtbert.pipeline.provenance import RECORD, plan_hash
from mtbert.settings.run import Run
from mtbert.training.progress import Overall
from mtbert.training.sampling import epoch_schedule, sampler_in


def overall(run_name: str) -> Overall:
    """A run's place among all runs of params.yaml: how many are trained already, and the tokens of the others."""
    names = sorted(path.stem for path in (PLAN / "train").glob("*.json"))
    waiting = [name for name in names if name != run_name and not _trained(name)]
    return Overall(len(names) - len(waiting) - 1, len(names), sum(map(_tokens, waiting)))


def views_of(run: Run) -> dict[str, tuple[str, ...]]:
    """The sequences of an example that each task's head reads, as `MultitaskModel.views` gives them."""
    return {task: views_for(objective.inputs) for task, objective in run.heads.items()}


def _trained(name: str) -> bool:
    try:
        made = json.loads((MODELS / name / RECORD).read_text(encoding="utf-8"))["plan"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(made == plan_hash(planned("train", name)))


def _tokens(name: str) -> int:
    """An estimate: the mean length of each task's examples times the examples of the middle epoch, for every epoch."""
    settings = planned("train", name)["settings"]
    run = Run.model_validate(settings["run"])
    views, data = views_of(run), {task: load_split(PREPARED, run.known[task], "train") for task in run.tasks}
    lengths = {task: run.passes * row_tokens(data[task], views[task], settings["max_tokens"]) for task in run.tasks}
    if run.optimization and (share := run.optimization.hold_out):
        lengths = {task: tokens[held_out_rows(len(tokens), share) :] for task, tokens in lengths.items()}
    sizes = {task: len(tokens) for task, tokens in lengths.items()}
    means = {task: float(tokens.mean()) for task, tokens in lengths.items()}
    middle = run.epochs // 2
    sampler = sampler_in(run.sampler, middle, run.epochs)
    epoch = epoch_schedule(sizes, run.batch_size, sampler, run.epoch_end, run.seed, middle, lengths)
    return round(run.epochs * sum(means[task] * len(rows) for task, rows in epoch))
