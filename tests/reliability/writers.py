"""Figure 8: one run never has two writers, the second one's error names the first and a remedy, and a trainer does not outlive DVC."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import psutil

import stages.train
from tests.project import call, commit, edit, ended, fork, isolated, must, start, tiny_project
from tests.reliability.trainer import logged, quietly, training_project
from tests.reliability.trial import Tally

RUN = "full_balanced"
LOCK = Path(".mtbert/locks") / RUN
PATIENCE = 120.0  # seconds to wait at most
EARLY = (0.0, 0.03, 0.1, 0.3)  # seconds between a trainer's start and DVC's end, before the trainer has imported torch


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """Trainers against each other; in the full tier also `dvc repro` against itself and against trainers."""
    tally: Tally = isolated(_trainers, 3 if quick else 20, seed, folder / "trainers")
    if not quick:
        _with_dvc(tally, 3, folder / "dvc")
    tally.note = "trainers only: `dvc repro` in the full tier" if quick else ""
    return [tally]


def _trainers(times: int, seed: int, folder: Path) -> Tally:
    """Start several trainers of one run at once: one trains, the others exit and name its id. Then the same without the lock."""
    tally = Tally(8, "two writers, orphans", "never two writers, the error names the process, no orphan", seed)
    training_project(folder, [RUN])
    edit(folder, **{f"runs__{RUN}__epoch_end": 100_000})
    quietly("plan")
    for _ in range(times):
        tally.trial(*_race(folder))
    with patch.object(stages.train, "only_writer", lambda *_: nullcontext()):
        tally.control(not _race(folder)[0], "the lock not taken")
    return tally


def _race(folder: Path) -> tuple[bool, str]:
    shutil.rmtree(".mtbert", ignore_errors=True)
    children = [fork(lambda n=n: logged(folder / f"{n}.log", "train", RUN)) for n in range(3)]  # type: ignore[misc]
    try:
        gone: dict[int, int] = {}
        deadline = time.monotonic() + PATIENCE
        while len(gone) < 2 and time.monotonic() < deadline:
            for child in set(children) - gone.keys():
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    gone[child] = os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
            if not gone and any(Path(".mtbert").glob("*/step-00000002*")) and len(_writers(children)) > 1:
                return False, "two trainers write"
        left = [child for child in children if child not in gone]
        outputs = [(folder / f"{children.index(child)}.log").read_text(encoding="utf-8") for child in gone]
        if len(left) != 1 or set(gone.values()) != {1}:
            return False, f"{len(left)} are left, exit statuses {list(gone.values())}: {outputs}"
        named = all(
            re.search(rf"trained by process {left[0]} .*; wait for it, or stop it there with `kill {left[0]}`", line)
            for line in outputs
        )
        clear = all("Traceback" not in line and line.count("error:") == 1 for line in outputs)
        return named and clear, f"the losers printed: {outputs}"
    finally:
        for child in children:
            if child not in gone:
                os.kill(child, signal.SIGKILL)
                ended(child)


def _writers(children: list[int]) -> set[int]:
    """The processes that have the run's steps.csv open."""
    return {
        child
        for child in children
        if any(file.path.endswith("steps.csv") for file in psutil.Process(child).open_files())
    }


def _with_dvc(tally: Tally, times: int, project: Path) -> None:
    tiny_project(project)
    commit(project, "tiny")
    must(project, "dvc", "repro", "prepare")
    edit(project, runs__baseline__epoch_end=100_000)
    must(project, "dvc", "repro", "convert@baseline")  # and the plan, which trainers started without DVC read
    repro = ("dvc", "repro", "train@baseline")
    trainer = (sys.executable, "-m", "stages.train", "baseline")
    for _ in range(times):
        _second(tally, project, "a second dvc repro", repro, repro)
        _second(tally, project, "dvc repro beside a trainer", trainer, repro)
        _second(tally, project, "a trainer beside dvc repro", repro, trainer)
        tally.trial(*_orphan(project, repro))
        for delay in EARLY:
            tally.trial(*_early_orphan(project, repro, delay))
    (project / "stages/__init__.py").write_text("")
    tally.control(not _early_orphan(project, repro, EARLY[-1])[0], "a stage does not end with DVC")


def _second(tally: Tally, project: Path, what: str, first: tuple[str, ...], second: tuple[str, ...]) -> None:
    """Start the second command while the first one trains: it must exit and name a process of the first."""
    process = start(project, *first)
    try:
        trainer = _holder(project)
        status, output = call(project, *second)
        named = [pid for pid in (process.pid, trainer) if re.search(rf"\b{pid}\b", output)]
        ok = status != 0 and bool(named) and "Traceback" not in output and process.poll() is None
        tally.trial(ok, f"{what}: status {status}, names {named}: {output[-600:]}")
    finally:
        _end(process.pid)
        process.communicate()


def _orphan(project: Path, command: tuple[str, ...]) -> tuple[bool, str]:
    """SIGKILL `dvc repro`: its trainer must end too, and a new `dvc repro` must be able to train the run."""
    process = start(project, *command)
    trainer = _holder(project)
    if not _gone_with(process, trainer):
        return False, f"the trainer outlived its parent by {PATIENCE / 4:.0f} s"
    again = start(project, *command)
    try:
        return _holder(project) != trainer, "the run stays locked after its trainer was killed"
    finally:
        _end(again.pid)
        again.communicate()


def _early_orphan(project: Path, command: tuple[str, ...], delay: float) -> tuple[bool, str]:
    """SIGKILL `dvc repro` this many seconds after its trainer's start."""
    process = start(project, *command)
    dvc = psutil.Process(process.pid)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if any("stages.train" in words for words in map(_words, dvc.children(recursive=True))):
            time.sleep(delay)
            # The shell that DVC starts may stay the trainer's parent, or become the trainer.
            family = {child.pid for child in dvc.children(recursive=True)}
            ok = _gone_with(process, *family)
            return ok, f"the trainer outlived its parent, killed after {delay} s, by {PATIENCE / 4:.0f} s"
        time.sleep(0.005)
    _end(process.pid)
    raise TimeoutError("no trainer was started")


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # ended just now
        return ""


def _gone_with(process: subprocess.Popen[str], *children: int) -> bool:
    """SIGKILL a process; whether its children end too. Those that do not are killed."""
    process.kill()
    deadline = time.monotonic() + PATIENCE / 4
    while any(map(psutil.pid_exists, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    alive = [child for child in children if psutil.pid_exists(child)]
    for child in alive:
        _end(child)
    process.communicate()
    return not alive


def _holder(project: Path) -> int:
    """Wait until a live process holds the lock and has made a checkpoint; its id."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        lock = project / ".mtbert/locks/baseline"
        text = lock.read_text() if lock.exists() else ""
        if text and psutil.pid_exists(int(text)) and any((project / ".mtbert").glob("*/latest.json")):
            return int(text)
        time.sleep(0.1)
    raise TimeoutError("no trainer has begun")


def _end(pid: int) -> None:
    """Kill a process and its children."""
    try:
        family = psutil.Process(pid)
        members = [*family.children(recursive=True), family]
    except psutil.NoSuchProcess:
        return
    for member in members:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(members, timeout=10)
