"""Figure 3: a kill at any line inside a save leaves a readable state, and the next start leaves no litter."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Protocol
from unittest.mock import patch

import torch
from torch import nn

import mtbert.files
from mtbert.errors import MtbertError
from mtbert.files import atomic_json, replaced_folder
from mtbert.training import checkpoint
from mtbert.training.checkpoint import load_checkpoint, save_checkpoint
from mtbert.training.log import Step, StepLog
from mtbert.training.work import LATEST
from reliability.project import forked, isolated
from reliability.trial import Tally, Trial

TRACED = {mtbert.files.__file__, checkpoint.__file__}
OLD, NEW, LATER = 3, 5, 7  # steps of three checkpoints


def run(quick: bool, seed: int, folder: Path) -> list[Trial]:
    """Figure 3, in a process of its own."""
    return isolated(_trials, quick, seed, folder)


def _trials(quick: bool, seed: int, folder: Path) -> list[Trial]:
    tally = Tally(3, "kill before and after every step of a save", "0 unreadable, 0 leftovers", seed)
    torch.set_num_threads(1)
    every = 9 if quick else 1
    subjects: tuple[type[Save], ...] = (Checkpoint, Log, Folder)
    for save in subjects:
        for kill in (_at_line, _inside_write):
            for n, fault in _kills(save(folder / "work"), kill, every):
                tally.trial(not fault, f"{save.__name__}, killed {kill.__name__[1:]} {n}: {fault}")
    for bug, save, plant in PLANTED:
        faults = [
            fault
            for kill in (_at_line, _inside_write)
            for _, fault in _kills(save(folder / "work"), kill, every, plant)
        ]
        tally.control(any(faults), bug)
    return [tally.done()]


class Save(Protocol):
    """Something that is saved, in a folder that `begin` makes anew with an old state in it."""

    def __init__(self, folder: Path) -> None: ...
    def begin(self) -> None: ...
    def save(self) -> None:
        """What a kill interrupts."""

    def fault(self) -> str:
        """What is wrong with what the kill left; then a restart's own save is made, and its litter is told."""


def _kills(save: Save, kill: Callable[[int], None], every: int, plant: Callable[[], None] | None = None) -> Any:
    """Interrupt `save` at its 1st, 2nd, ... point until it runs through; (point, fault) of each."""
    point = 1
    while True:
        save.begin()

        def work(point: int = point) -> None:
            if plant:
                plant()
            kill(point)
            save.save()
            sys.settrace(None)

        status = forked(work)
        if status == 0:
            return
        yield point, save.fault() if status == -signal.SIGKILL else f"exit status {status}"
        point += every if kill is _at_line else 1


def _at_line(point: int) -> None:
    """Kill this process when it comes to the point-th line inside mtbert.files and mtbert.training.checkpoint."""
    left = [point]

    def local(frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return local

    sys.settrace(lambda frame, _event, _argument: local if frame.f_code.co_filename in TRACED else None)


def _inside_write(point: int) -> None:
    """Kill this process when half of the bytes of its point-th file are written."""
    real, left = os.fdopen, [point]

    class Half:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> "Half":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> None:
            left[0] -= 1
            self.file.write(data[: len(data) // 2] if left[0] == 0 else data)
            if left[0] == 0:
                self.file.flush()
                os.kill(os.getpid(), signal.SIGKILL)

    patch.object(os, "fdopen", lambda *arguments: Half(real(*arguments))).start()


def _trained(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def _same(one: tuple[nn.Module, torch.optim.Optimizer], other: tuple[nn.Module, torch.optim.Optimizer]) -> bool:
    pairs = zip(one[0].parameters(), other[0].parameters(), strict=True)
    return all(
        torch.equal(mine, theirs)
        and all(torch.equal(value, other[1].state[theirs][key]) for key, value in one[1].state[mine].items())
        for mine, theirs in pairs
    )


class Checkpoint:
    """A second checkpoint beside the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.states = {step: _trained(step) for step in (OLD, NEW, LATER)}

    def begin(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        save_checkpoint(self.folder, *self.states[OLD], OLD, {"tokens": OLD})

    def save(self) -> None:
        save_checkpoint(self.folder, *self.states[NEW], NEW, {"tokens": NEW})

    def fault(self) -> str:
        found = _trained(0)
        try:
            step, progress = load_checkpoint(self.folder, *found) or (0, {})
        except MtbertError as error:
            return str(error)
        if step not in (OLD, NEW) or progress != {"tokens": step} or not _same(self.states[step], found):
            return f"neither the old nor the new state, but step {step}"
        save_checkpoint(self.folder, *self.states[LATER], LATER, {})
        return _litter(self.folder, {LATEST, f"step-{LATER:08d}.safetensors"})


class Log:
    """steps.csv cut back to the checkpoint when a run resumes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = _trained(0)

    def begin(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._write(0, NEW)

    def save(self) -> None:
        self._write(OLD, LATER)

    def fault(self) -> str:
        try:
            self._write(OLD, LATER)
        except MtbertError as error:
            return str(error)
        lines = (self.folder / "steps.csv").read_text(encoding="utf-8").splitlines()
        if [line.partition(",")[0] for line in lines] != ["step", *map(str, range(1, LATER + 1))]:
            return f"steps.csv holds {lines}"
        save_checkpoint(self.folder, *self.state, LATER, {})
        return _litter(self.folder, {LATEST, f"step-{LATER:08d}.safetensors", "steps.csv"})

    def _write(self, done: int, until: int) -> None:
        log = StepLog(self.folder / "steps.csv", done)
        for step in range(done + 1, until + 1):
            log.step(Step(step, LATER, 1, "sst", step / 3, step))
        log.close()


class Folder:
    """A stage's output folder, replaced as a whole."""

    replaced = staticmethod(replaced_folder)

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"

    def begin(self) -> None:
        shutil.rmtree(self.out.parent, ignore_errors=True)
        self._write("old")

    def save(self) -> None:
        self._write("new")

    def fault(self) -> str:
        # Between the two renames the out is absent, which its stage is run again for; nothing may be half there.
        if self.out.exists() and self._holds() not in ({"old"}, {"new"}):
            return f"the folder holds {self._holds()}"
        if not self.out.exists() and not any("old" in path.name for path in self.out.parent.iterdir()):
            return "neither the old nor the new folder is left"
        self._write("later")
        return "not replaced" if self._holds() != {"later"} else _litter(self.out.parent, {"out"})

    def _holds(self) -> set[str]:
        names = ("a.json", "b.json")
        return {(self.out / name).read_text().strip('"\n') if (self.out / name).exists() else "" for name in names}

    def _write(self, text: str) -> None:
        with Folder.replaced(self.out) as fresh:
            atomic_json(fresh / "a.json", text)
            atomic_json(fresh / "b.json", text)


def _litter(folder: Path, expected: set[str]) -> str:
    found = {path.name for path in folder.iterdir()}
    return "" if found == expected else f"left over: {sorted(found - expected)}, missing: {sorted(expected - found)}"


def _in_place(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(data)


def _plant_in_place() -> None:
    patch.object(checkpoint, "atomic_write_bytes", _in_place).start()
    patch.object(mtbert.files, "atomic_write_bytes", _in_place).start()


def _plant_early_removal() -> None:
    """The old checkpoint goes before the new one is named."""
    real = checkpoint.atomic_write_bytes

    def write(path: Path, data: bytes) -> None:
        for old in path.parent.glob("step-*"):
            old.unlink()
        real(path, data)

    patch.object(checkpoint, "atomic_write_bytes", write).start()


def _plant_no_folder_swap() -> None:
    class Careless:
        def __init__(self, path: Path) -> None:
            self.path = path

        def __enter__(self) -> Path:
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir()
            return self.path

        def __exit__(self, *_: object) -> None: ...

    patch.object(Folder, "replaced", Careless).start()


PLANTED: list[tuple[str, type[Save], Callable[[], None]]] = [
    ("files written in place", Checkpoint, _plant_in_place),
    ("the old checkpoint removed before the new one stands", Checkpoint, _plant_early_removal),
    ("steps.csv cut in place", Log, _plant_in_place),
    ("a folder written in place", Folder, _plant_no_folder_swap),
]
