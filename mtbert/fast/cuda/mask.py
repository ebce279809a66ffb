"""What Triton's kernels share on the host: the source of a dropout mask, and a launch."""

from typing import Any, NamedTuple

from torch import Tensor


class Mask(NamedTuple):
    """What a dropout mask is drawn from, and its probability."""

    seed: Tensor | None
    site: int
    p: float

    def arguments(self) -> tuple[Tensor | None, int, float, float]:
        """As the kernels take them."""
        return *self, 0.0 if self.p == 1 else 1 / (1 - self.p)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Launch a kernel on the current stream."""
    kernel[grid](*arguments, **constants)
