"""`mtbert doctor`: what this machine and this checkout have, what they lack, and what to do about it."""

from collections.abc import Callable, Iterator
from pathlib import Path

from mtbert.doctor import inputs, machine, project
from mtbert.doctor.check import Check, failed
from mtbert.errors import MtbertError
from mtbert.params import PARAMS_FILE, load_params


def examine(root: Path) -> Iterator[Check]:
    """Run the checks of the project in `root`, yielding each result as it is ready."""
    checks: list[Callable[[Path], Check]] = [
        *(machine.python, machine.torch, machine.processor, machine.gpu, machine.kernels, machine.disk),
        *(project.git, project.identity, project.dvc, project.site_cache, project.cache),
    ]
    for check in checks:
        yield check(root)
    try:
        params = load_params(root / PARAMS_FILE)
    except MtbertError as error:
        yield from map(failed, str(error).splitlines())  # a line for each fault
        return
    yield inputs.data(root, params)
    yield inputs.encoder(root, params)
    yield project.undeclared(root, params.runs)
