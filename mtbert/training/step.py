"""The type of a loss, and the error for a step that runs out of memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from mtbert.errors import MtbertError, out_of_memory
from mtbert.training.compute import Compute

Loss = Callable[[Tensor, Tensor], Tensor]  # of scores and labels


@contextmanager
def naming_batch_size(compute: Compute, where: str, section: str = "") -> Iterator[None]:
    """Turn an out-of-memory error inside the block into one that names batch_size, a key of the run or of its `section`.

    Raises:
        MtbertError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise MtbertError(
            f"{where}: out of memory on {compute.device}; lower this run's {section}batch_size ({error})"
        ) from None
