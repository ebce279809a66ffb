"""How a run is trained, from its settings: losses, recipe, the examples held out, further pretraining."""

from collections.abc import Iterable
from pathlib import Path

from mtbert.data.arrays import Split, hold_out
from mtbert.data.tokens import Wrapper
from mtbert.errors import MtbertError
from mtbert.pipeline.models import mask_token, naming_key
from mtbert.pipeline.paths import PRETRAINED
from mtbert.pretrained.store import load_masked_head
from mtbert.settings.run import Run
from mtbert.training.aggregation import packages_of
from mtbert.training.engine import Engine
from mtbert.training.further import pretrain_further
from mtbert.training.log import Observer
from mtbert.training.optimization import PAPER
from mtbert.training.progress import TrainingProgress
from mtbert.training.recipe import Recipe
from mtbert.training.step import Loss
from mtbert.training.task_losses import task_losses
from mtbert.training.uncertainty import UncertaintyWeights
from mtbert.training.work import FURTHER


def recipe_of(run: Run) -> Recipe:
    """How the run is trained."""
    adapter_rate = run.adapter.learning_rate if run.adapter else None
    return Recipe(
        run.sampler,
        run.epoch_end,
        run.epochs,
        run.batch_size,
        run.learning_rate,
        adapter_rate,
        run.seed,
        run.optimization or PAPER,
        run.passes,
        run.uncertainty.learning_rate if run.uncertainty else 0.0,
        run.aggregation or "mean",
        run.measure_conflicts,
    )


def losses_of(run: Run, uncertainty: UncertaintyWeights | None = None) -> dict[str, Loss]:
    """The loss of each head, by task; `uncertainty` are the weights that the run learns."""
    return task_losses(run.heads, r_drop=run.r_drop, weights=run.task_weights, uncertainty=uncertainty)


def uncertainty_of(run: Run) -> UncertaintyWeights | None:
    """The weights that the run learns; None if it learns none."""
    return UncertaintyWeights({name: run.known[name] for name in run.tasks}) if run.uncertainty else None


def packages_of_run(run: Run, where: str) -> dict[str, str]:
    """The versions of the packages that the run's aggregation takes from elsewhere.

    Args:
        where: the run's key in params.yaml, for errors.

    Raises:
        MtbertError: one is not installed.
    """
    with naming_key(where):
        return packages_of(run.aggregation or "mean")


def check_processes(run: Run, run_name: str, processes: int) -> None:
    """Refuse what several processes cannot train together."""
    if processes > run.batch_size:
        raise MtbertError(
            f"params.yaml: runs.{run_name}.batch_size is {run.batch_size}, too few examples for {processes} "
            f"processes; start {run.batch_size} at most, or raise batch_size"
        )
    if processes > 1 and run.further_pretraining is not None:
        raise MtbertError(
            f"params.yaml: runs.{run_name}.further_pretraining takes one process; start this run without torchrun, or set it to null"
        )
    whole = [task for task in run.tasks if not run.heads[task].mean_of_examples]
    if processes > 1 and whole:
        objective = run.heads[whole[0]].objective
        raise MtbertError(
            f"params.yaml: runs.{run_name}.heads.{whole[0]}.objective: {objective} compares the examples of a whole batch, so {processes} "
            "processes cannot share it; train this run by one process, or choose another objective"
        )


def take_held_out(run: Run, run_name: str, data: dict[str, Split]) -> dict[str, Split]:
    """Take the examples that choose the epoch out of the training data, if the run holds some out."""
    held_out: dict[str, Split] = {}
    if run.optimization is not None and (share := run.optimization.hold_out) is not None:
        for task, split in data.items():
            try:
                data[task], held_out[task] = hold_out(split, share, run.seed)
            except MtbertError as error:
                raise MtbertError(f"params.yaml: runs.{run_name}.{error}") from None
    return held_out


def pretrained_further(
    run: Run,
    engine: Engine,
    data: Iterable[Split],
    tokens: Wrapper,
    work: Path,
    observers: Iterable[Observer],
    checkpoint_seconds: float,
) -> list[float]:
    """Pretrain the encoder further on the training text, if the run does; the losses by step."""
    if run.further_pretraining is None:
        return []
    return pretrain_further(
        engine,
        data,
        run.further_pretraining,
        seed=run.seed,
        mask=mask_token(),
        head=load_masked_head(PRETRAINED),
        wrapper=tokens,
        observers=[one for one in observers if isinstance(one, TrainingProgress)],
        work=work / FURTHER,
        checkpoint_seconds=checkpoint_seconds,
    )
