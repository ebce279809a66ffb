"""`mtbert doctor`: what this machine and this checkout have, what they lack, and what to do about it."""

from collections.abc import Callable, Iterator
from pathlib import Path

from mtbert.doctor import inputs, machine, project
from mtbert.doctor.check import Check
from mtbert.params import Params


def examine(root: Path, params: Params | None) -> Iterator[Check]:
    """Run the checks, yielding each result as it is ready.

    Args:
        root: the project's root.
        params: the settings in params.yaml; None if it cannot be read.
    """
    checks: list[Callable[[Path], Check]] = [
        *(machine.python, machine.torch, machine.processor, machine.gpu, machine.kernels, machine.disk),
        *(project.git, project.identity, project.dvc, project.site_cache, project.cache),
    ]
    for check in checks:
        yield check(root)
    if params is None:
        yield Check("problem", "params.yaml cannot be read", "run `mtbert clean` to see why")
        return
    yield inputs.data(root, params)
    yield inputs.encoder(root, params)
    yield project.undeclared(root, params.runs)
