"""How the tasks' gradients become one, in a step that holds a batch of every task. All but the mean are torchjd's code.

Shapes: N tasks.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

from mtbert.errors import MtbertError

if TYPE_CHECKING:  # the settings read the names without importing torch
    from torch import Tensor

AGGREGATIONS = ("mean", "pcgrad", "aligned_mtl", "upgrad")

# Of the Gramian (N, N) of the tasks' gradients: the weights (N,) of their sum.
Weights = Callable[["Tensor"], "Tensor"]


def weights_by(aggregation: str) -> Weights:
    """The rule that weights the tasks' gradients; those of tasks that do not conflict get 1 / N by mean, pcgrad and upgrad.

    Args:
        aggregation: mean; pcgrad, which projects each gradient onto the normal plane of every gradient that it conflicts with
            (Yu et al. 2020, algorithm 1; divided by N, so that it is a mean too); aligned_mtl, which gives the gradients'
            principal components equal lengths (Senushkin et al. 2023); or upgrad, the mean of the gradients' projections onto
            the cone of directions that harm no task (Quinton and Rey 2024).

    Raises:
        MtbertError: torchjd, or what it needs for upgrad, is not installed.
    """
    if aggregation == "mean":
        return lambda gramian: gramian.new_full((len(gramian),), 1 / len(gramian))
    try:
        from torchjd.aggregation import AlignedMTLWeighting, PCGradWeighting, UPGradWeighting

        if aggregation == "pcgrad":
            pcgrad = PCGradWeighting()
            return lambda gramian: pcgrad(gramian) / len(gramian)
        return AlignedMTLWeighting() if aggregation == "aligned_mtl" else UPGradWeighting()
    except ImportError as error:
        raise MtbertError(
            f"aggregation: {aggregation} needs torchjd ({error}); install it (pip install 'mtbert[multitask]'), or set "
            "aggregation: mean"
        ) from None


def requirements(aggregation: str) -> tuple[str, ...]:
    """The packages that an aggregation imports beside mtbert's own; qpsolvers and quadprog solve UPGrad's projections."""
    if aggregation == "mean":
        return ()
    return ("torchjd", "qpsolvers", "quadprog") if aggregation == "upgrad" else ("torchjd",)


def packages_of(aggregation: str) -> dict[str, str]:
    """The versions of the packages that an aggregation takes from elsewhere, for the provenance record.

    Raises:
        MtbertError: as `weights_by`.
    """
    weights_by(aggregation)
    return {} if aggregation == "mean" else {"torchjd": version("torchjd")}
