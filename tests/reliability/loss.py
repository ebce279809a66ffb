"""Figure 18: NaN and infinity reach no checkpoint, and an out-of-memory error names the setting to change.

tests/training/test_loop.py tests that the weights are unchanged; here faults occur in any step of any sampler, and
memory is limited.
"""

import random
import resource
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch._dynamo  # an optimizer imports it, which needs more memory than the limit allows
from torch import Tensor

from mtbert.engines import engine_for
from mtbert.errors import MtbertError
from mtbert.model.multitask import MultitaskModel
from mtbert.pretrained.store import read_safetensors
from mtbert.tasks.losses import binary_cross_entropy, cross_entropy, mean_squared_error
from mtbert.training import checkpoint, loop, step
from mtbert.training.compute import Compute
from mtbert.training.recipe import Recipe
from mtbert.training.step import Loss
from mtbert.training.work import checkpoint_step
from tests.project import forked, isolated
from tests.reliability.trial import Tally
from tests.tiny import WRAPPER, tiny_model, tiny_split

LOSSES: dict[str, Loss] = {"sst": cross_entropy, "quora": binary_cross_entropy, "sts": mean_squared_error}
SAMPLERS = ("sequential", "round_robin", "proportional", "square_root", "balanced")
STEPS = 12
MEGABYTES = 30


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """Faults at random steps, and real out-of-memory errors under a limit."""
    tally = Tally(
        18, "losses that are not finite; out of memory", "100% stopped before weights or checkpoint change", seed
    )
    rng = random.Random(seed)
    for n in range(20 if quick else 200):
        kind = list(SPOILT)[n % len(SPOILT)]
        tally.trial(*_stopped(folder / "work", kind, rng))
    for status, what in isolated(_shortages, 2 if quick else 10, seed, folder / "memory"):
        tally.trial(status == 0, f"{what}: exit status {status}")
    for bug, kind, owner, part, plant in PLANTED:
        with patch.object(owner, part, plant):
            outcomes = [_stopped(folder / "work", kind, rng)[0] for _ in range(6)]
        tally.control(not all(outcomes), bug)
    ((status, _),) = isolated(_shortages, 1, seed, folder / "memory", True)
    tally.control(status != 0, "torch's own error passed on")
    return [tally]


def _train(work: Path, losses: dict[str, Loss], model: MultitaskModel, rows: int, batch: int, sampler: str) -> None:
    loop.Training(
        engine_for(model, Compute(torch.device("cpu"), bf16=False)),
        {task: tiny_split(task, rows) for task in LOSSES},
        losses,
        Recipe(sampler, STEPS // 2, epochs=2, batch_size=batch, learning_rate=0.01, seed=1),
        wrapper=WRAPPER,
        evaluate=lambda _: {},
        work=work,
        checkpoint_seconds=0,
    ).run()


def _stopped(work: Path, kind: str, rng: random.Random) -> tuple[bool, str]:
    """Whether a run with a fault in a random step ends in one clear error and keeps a valid checkpoint from before it."""
    shutil.rmtree(work, ignore_errors=True)
    at, sampler = rng.randrange(1, STEPS + 1), rng.choice(SAMPLERS)
    calls = 0

    def spoilt(loss_of: Loss, scores: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        value = loss_of(scores, labels)
        return SPOILT[kind](value) if calls == at else value

    what = f"{kind} in step {at}, {sampler}"
    try:
        _train(work, {task: partial(spoilt, loss) for task, loss in LOSSES.items()}, tiny_model("mean"), 12, 4, sampler)
    except MtbertError as error:
        message = str(error)
    except Exception as error:
        return False, f"{what}: {type(error).__name__}: {error}"
    else:
        return False, f"{what}: trained on"
    if "lower this run's" not in message:
        return False, f"{what}: {message}"
    files = list(work.glob("*.safetensors"))
    if not all(torch.isfinite(tensor).all() for file in files for tensor in read_safetensors(file).values()):
        return False, f"{what}: a checkpoint holds NaN or infinity"
    step = checkpoint_step(work)
    return step == at - 1 or step == at - 2, f"{what}: the checkpoint is of step {step}"


def _out_of_memory(_loss: Tensor) -> Tensor:
    return torch.empty(2**50)


SPOILT: dict[str, Callable[[Tensor], Tensor]] = {
    "NaN": lambda loss: loss * float("nan"),
    "infinity": lambda loss: loss * float("inf"),
    "minus infinity": lambda loss: -loss * float("inf"),
    "infinite gradient": lambda loss: loss + (loss - loss.detach()).sqrt(),
    "out of memory": _out_of_memory,
}


def _shortages(times: int, seed: int, folder: Path, planted: bool = False) -> list[tuple[int, str]]:
    """Train on large batches with little memory, each in a fork of this process; returns exit statuses."""
    if planted:
        patch.object(step, "out_of_memory", lambda _: False).start()
    rng = random.Random(seed)
    batches = [rng.randrange(3000, 6000) for _ in range(times)]
    return [(forked(lambda batch=batch: _short(folder, batch)), f"batches of {batch}") for batch in batches]  # type: ignore[misc]


def _short(folder: Path, batch: int) -> None:
    model = tiny_model("mean")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (MEGABYTES << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        _train(folder, LOSSES, model, batch, batch, "round_robin")
    except MtbertError as error:
        if "out of memory" in str(error) and "batch_size" in str(error):
            return
        raise
    except RuntimeError:
        raise SystemExit(3) from None
    raise SystemExit(5)


PLANTED: list[tuple[str, str, Any, str, Any]] = [
    ("losses not checked", "NaN", loop.Training, "_read_losses", lambda training: training.unread.clear()),
    ("weights not checked before a checkpoint", "infinite gradient", checkpoint, "check_finite", lambda *_: None),
    ("out of memory passed on", "out of memory", step, "out_of_memory", lambda _: False),
]
