"""Further pretraining of the encoder on the tasks' own training text, before a run trains on the tasks (Gururangan et al. 2020).

A step's sentences, masks and dropout are functions of (seed, step), and checkpoints are as the run's own, so an interrupted run ends in
the same bits.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mtbert.data.arrays import Split
from mtbert.data.batches import stream_of
from mtbert.data.masking import masked
from mtbert.data.tokens import TokenStream, Wrapper
from mtbert.errors import MtbertError
from mtbert.model.masked import MaskedTokenHead
from mtbert.tabular import write_csv
from mtbert.training.checkpoint import check_finite, load_checkpoint, save_checkpoint
from mtbert.training.engine import Engine
from mtbert.training.log import Observer, Step
from mtbert.training.recipe import FurtherPretraining, Recipe
from mtbert.training.sampling import epoch_schedule
from mtbert.training.step import naming_batch_size
from mtbert.training.stop import stop_requests

# Added to the run's seed, which makes a longer key than training has, so no masks or sentences are the same.
APART = 2**160
SECTION = "further_pretraining."
TEXT = "text"  # the name of the task in messages


def pretrain_further(
    engine: Engine,
    data: Iterable[Split],
    settings: FurtherPretraining,
    *,
    seed: int,
    mask: int,
    head: Mapping[str, Tensor] | None = None,
    wrapper: Wrapper,
    observers: Sequence[Observer] = (),
    work: Path,
    checkpoint_seconds: float,
) -> list[float]:
    """Train the engine's encoder in place to predict masked tokens, resuming from the checkpoint in `work` if there is one.

    The head for masked tokens is dropped afterwards. A checkpoint of the last step stays in `work`.

    Args:
        data: the splits whose sentences are trained on, each sentence by itself.
        seed: the run's.
        mask: the id of [MASK].
        head: the head's tensors; None for random ones.
        work: a folder of its own for checkpoints.

    Returns:
        The mean loss of each step.

    Raises:
        MtbertError, Stopped: as `mtbert.training.loop.Training`.
    """
    model, sentences = engine.model, Sentences(data)
    masked_head = MaskedTokenHead(model.encoder.config, seed)
    seed += APART
    if head is not None:
        masked_head.load_state_dict(head)
    model.masked = masked_head.to(engine.compute.device)
    recipe = Recipe("sequential", settings.steps, 1, settings.batch_size, settings.learning_rate, seed=seed)
    optimizer = engine.optimizer(recipe)
    losses: list[float] = []
    if found := load_checkpoint(work, model, optimizer):
        losses = found[1]["losses"]
    done, saved = len(losses), time.monotonic()
    if 0 < done < settings.steps:
        for observer in observers:
            observer.resume(done, settings.steps)
    model.train()
    schedule = epoch_schedule({TEXT: len(sentences)}, settings.batch_size, "sequential", settings.steps, seed, 0)
    with stop_requests() as stop:
        for step, (_, rows) in enumerate(schedule, start=1):
            if step <= done:
                continue
            stream = sentences.stream(rows, wrapper)
            with naming_batch_size(engine.compute, f"step {step} of further_pretraining", SECTION):
                loss = float(_step(engine, masked_head, optimizer, stream, mask, seed, step))
            if loss - loss != 0:  # NaN or infinite
                raise MtbertError(
                    f"step {step} of further_pretraining: the loss is {loss}; lower this run's {SECTION}learning_rate, or set "
                    "compute.precision: fp32"
                )
            losses.append(loss)
            for observer in observers:
                observer.step(Step(step, settings.steps, 0, TEXT, loss, stream.tokens))
            last = step == settings.steps
            if last:
                check_finite(step, model.state_dict(), SECTION)
            if last or stop.asked or time.monotonic() - saved >= checkpoint_seconds:
                save_checkpoint(work, model, optimizer, step, {"losses": losses}, section=SECTION)
                saved = time.monotonic()
            if stop.asked:
                raise stop.after(step, settings.steps)
    del model.masked
    return losses


class Sentences:
    """All sentences of some splits, one after another."""

    def __init__(self, data: Iterable[Split]) -> None:
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        for split in data:
            self._parts.append((split.ids1, split.offsets1))
            if split.ids2 is not None and split.offsets2 is not None:
                self._parts.append((split.ids2, split.offsets2))
        self._ends = np.cumsum([len(offsets) - 1 for _, offsets in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, n: int) -> np.ndarray:
        """The wordpieces of sentence n."""
        part = int(np.searchsorted(self._ends, n, side="right"))
        ids, offsets = self._parts[part]
        row = n - self._ends[part] + len(offsets) - 1
        return ids[offsets[row] : offsets[row + 1]]

    def stream(self, rows: np.ndarray, wrapper: Wrapper) -> TokenStream:
        """Some sentences with special tokens, as one stream."""
        return stream_of([wrapper.single(self[n]) for n in rows])


def write_losses(path: Path, losses: Sequence[float]) -> None:
    """Write further.csv, a row per step."""
    write_csv(path, ["step", "loss"], enumerate(losses, start=1))


def _step(
    engine: Engine,
    head: MaskedTokenHead,
    optimizer: torch.optim.Optimizer,
    stream: TokenStream,
    mask: int,
    seed: int,
    step: int,
) -> Tensor:
    """Forward, backward, update; the mean loss of the masked tokens, (). If it is not finite, the update is skipped."""
    model, device = engine.model, engine.compute.device
    table = model.encoder.embeddings.token.weight
    ids, offsets = stream.ids.numpy(), stream.offsets.numpy()
    fixed = np.zeros(len(ids), np.bool_)
    fixed[offsets[:-1]] = fixed[offsets[1:] - 1] = True  # a sequence's first and last token, and filler
    hidden = masked(ids, fixed, mask, len(table), np.random.default_rng([seed, step]))
    model.reseed(seed, step)
    # A leaf of its own, since the CPU's engine adds the looked-up rows' gradients to the table's without autograd.
    tied = table.detach().requires_grad_()
    with engine.compute.autocast():
        states = engine.encode(replace(stream, ids=torch.from_numpy(hidden.ids)).to(device))
        scores = head(states[torch.from_numpy(hidden.places).to(device)], tied)
    loss = F.cross_entropy(scores.float(), torch.from_numpy(hidden.targets).to(device))
    loss.backward()
    assert table.grad is not None and tied.grad is not None
    table.grad = table.grad + tied.grad
    if loss.isfinite():
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()
