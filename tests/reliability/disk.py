"""Figure 9: a full disk leaves the old state intact and gives one clear error; with space again the same command continues."""

import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mtbert.corpus import source
from mtbert.pipeline.start import guarded
from tests.project import isolated
from tests.reliability import trainer
from tests.reliability.trainer import checksums, run_stage, training_project
from tests.reliability.trial import Tally

RUN = "dora_sequential"
# Stage, argument and output; later stages read the outputs of earlier ones.
STAGES: list[tuple[str, tuple[str, ...], str]] = [
    ("fetch", (), "data/raw"),
    ("encoder", (), "models/pretrained"),
    ("prepare", (), "data/prepared"),
    ("convert", (RUN,), f"models/converted/{RUN}"),
    ("train", (RUN,), f"models/{RUN}"),
    ("evaluate", (RUN,), f"results/{RUN}"),
    ("statistics", (), "reports/sample"),
    ("table", ("table4",), "reports/sample/tables"),
    ("figure", ("figure4",), "reports/sample/figures"),
]
DISK = 96 << 20
CLEAR = re.compile(r"error: [^\n]*(File too large|No space left on device|disk I/O error|disk is full)[^\n]*; [^\n]+")


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """Run each stage under file-size limits and, in the full tier, on a small file system, in a process of its own."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = not quick and _mount(disk)
    try:
        tally: Tally = isolated(_trials, quick, mounted, seed, disk)
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)
    small = f"a file system of {DISK >> 20} MB filled up"
    if not mounted:
        small = f"no small file system: {'full tier only' if quick else 'mounting is not permitted here'}"
    tally.note = f"file-size limits; {small}"
    return [tally]


def _mount(disk: Path) -> bool:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(disk)], capture_output=True)
    return done.returncode == 0


def _trials(quick: bool, mounted: bool, seed: int, disk: Path) -> Tally:
    tally = Tally(9, "full disk", "old state intact, one clear error, resumable", seed)
    rng = random.Random(seed)
    training_project(disk / "project", [RUN])
    for stage, arguments, out in STAGES:
        if run_stage(stage, *arguments)[0]:
            raise RuntimeError(f"{stage} fails with enough space")
        if quick and stage not in ("fetch", "train"):
            continue
        largest = max(path.stat().st_size for path in Path(out).rglob("*") if path.is_file())
        for share in (0.5,) if quick else (0.02, rng.uniform(0.1, 0.8), 0.95):
            limit = nullcontext(max(400, int(share * largest)))
            tally.trial(*_judged(stage, arguments, Path(out), limit, f"{share:.2f} of its largest file"))
        if mounted:
            # A file of a few kilobytes may fit into any remaining page of 4 KiB, so small outputs are tried with no
            # space only.
            for room in (0, rng.randrange(0, largest // 2)) if largest > 65536 else (0,):
                tally.trial(*_judged(stage, arguments, Path(out), _ballast(room), f"{room} bytes left"))
    stage, arguments, out = STAGES[0]
    for bug, change in PLANTED:
        with change:
            tally.control(not _judged(stage, arguments, Path(out), nullcontext(600), bug)[0], bug)
    return tally


def _judged(stage: str, arguments: tuple[str, ...], out: Path, shortage: Any, what: str) -> tuple[bool, str]:
    """Run a stage over its own earlier output without enough space; then again with it."""
    before = checksums(out)
    with shortage as limit:
        status, text = run_stage(stage, *arguments, limit=limit)
    what = f"{stage}, {what}"
    errors = [line for line in text.splitlines() if "error" in line.lower()]
    if status != 1 or "Traceback" in text or len(errors) != 1 or not CLEAR.search(text):
        return False, f"{what}: status {status}: {text[-500:]}"
    if checksums(out) != before:
        return False, f"{what}: the old output is not intact"
    litter = [path.name for path in out.parent.iterdir() if path.name.startswith(f".{out.name}.")]
    if litter:
        return False, f"{what}: left over: {litter}"
    status, text = run_stage(stage, *arguments)
    return status == 0 and checksums(out) == before, f"{what}: does not continue with space again: {text[-500:]}"


@contextmanager
def _ballast(room: int) -> Iterator[None]:
    """Fill the file system until `room` bytes are free."""
    path = Path("../ballast")
    free = os.statvfs(".").f_bavail * os.statvfs(".").f_frsize
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - room))
    try:
        yield
    finally:
        path.unlink()


@contextmanager
def _in_place(path: Path) -> Iterator[Path]:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    yield path


def _unguarded(main: Any, *arguments: Any) -> int:
    main(*arguments)
    return 0


def _swallowing(main: Any, *arguments: Any) -> int:
    guarded(main, *arguments)
    return 0


PLANTED: list[tuple[str, Any]] = [
    ("a folder written in place", patch.object(source, "replaced_folder", _in_place)),
    ("the raw exception passed on", patch.object(trainer, "guarded", _unguarded)),
    ("the error swallowed", patch.object(trainer, "guarded", _swallowing)),
]
