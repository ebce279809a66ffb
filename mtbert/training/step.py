"""One training step: forward, backward, update. Nothing in it waits for the device, so that a CUDA graph can hold it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mtbert.data.batches import Batch
from mtbert.errors import MtbertError, out_of_memory
from mtbert.model.multitask import MultitaskModel
from mtbert.training.compute import Compute

Loss = Callable[[Tensor, Tensor], Tensor]


def train_step(
    model: MultitaskModel, optimizer: torch.optim.Optimizer, batch: Batch, loss_of: Loss, compute: Compute, where: str
) -> Tensor:
    """Forward, backward, update; the batch's mean loss, (), still on the device.

    Where it is NaN or infinite the update is left out, which the optimizer's own kernel does: nobody waits to see it.

    Raises:
        MtbertError: memory ran out.
    """
    with naming_batch_size(compute, where):
        return update(model, optimizer, batch, loss_of, compute)


def update(
    model: MultitaskModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    loss_of: Loss,
    compute: Compute,
    leave_out: bool = False,
) -> Tensor:
    """What `train_step` does, as a graph records it; with `leave_out` neither weights nor optimizer state change."""
    with compute.autocast():
        scores = model(batch)
    assert batch.labels is not None, "training splits are labelled"
    loss = loss_of(scores, batch.labels)
    loss.backward()
    loss = loss.detach()
    bad = torch.ones_like(loss) if leave_out else loss.isfinite().logical_not().float()
    optimizer.found_inf = bad  # type: ignore[attr-defined]
    optimizer.step()
    # None, not zero: a parameter without a gradient (another task's head) is not updated, and nothing has to be cleared.
    optimizer.zero_grad(set_to_none=True)
    return loss


@contextmanager
def naming_batch_size(compute: Compute, where: str) -> Iterator[None]:
    """Turn memory that runs out inside the block into an error that says what to do.

    Raises:
        MtbertError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise MtbertError(
            f"{where}: out of memory on {compute.device}; lower this run's batch_size ({error})"
        ) from None
