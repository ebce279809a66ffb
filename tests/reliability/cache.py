"""Figure 7: the next stage that reads an output notices a byte that changed in it or in DVC's cache."""

import os
import random
import re
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mtbert.corpus import prepare
from mtbert.data import arrays
from mtbert.pretrained import store
from mtbert.report import results
from tests.project import call, commit, isolated, must, tiny_project
from tests.reliability.trainer import run_stage, training_project
from tests.reliability.trial import Same, Tally

RUN = "dora_balanced"
# An output, and the stage that reads it next.
READERS: list[tuple[str, str, str]] = [
    ("data/raw", "prepare", ""),
    ("data/prepared/train", "train", RUN),
    ("data/prepared/dev", "train", RUN),
    ("data/prepared/test", "evaluate", RUN),
    ("models/pretrained", "convert", RUN),
    (f"models/converted/{RUN}", "train", RUN),
    (f"models/{RUN}", "evaluate", RUN),
    (f"results/{RUN}", "table", "table4"),
    (f"results/{RUN}", "figure", "figure2"),
    (f"results/{RUN}", "statistics", ""),
]
# The files that the stage reads, for outputs that also hold files that no stage reads.
READ = {
    "models/pretrained": ("model.safetensors", "config.json"),
    f"models/converted/{RUN}": ("model.safetensors", "config.json"),
    f"models/{RUN}": ("model.safetensors", "config.json", "record.json"),
    f"results/{RUN}": ("metrics.json", "examples/sst-dev.csv"),
    "table4": ("examples/quora-dev.csv",),
    "figure2": ("history.csv", "metrics.json", "record.json"),
}


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """Change outputs in place, with their times and permissions as before; in the full tier also objects of a real DVC cache."""
    tally: Tally = isolated(_in_place, quick, seed, folder / "project")
    if not quick:
        _in_cache(tally, seed, folder / "dvc")
    tally.note = "the cache itself in the full tier" if quick else ""
    return [tally]


def _in_place(quick: bool, seed: int, project: Path) -> Tally:
    tally = Tally(7, "damaged outputs and cache", "noticed by the next stage that reads it", seed)
    training_project(project, [RUN])
    for stage, *arguments in (("train", RUN), ("evaluate", RUN), ("statistics",)):
        status, text = run_stage(stage, *arguments)
        if status:
            raise RuntimeError(text)
    rng = random.Random(seed)
    for reader in READERS[::3] if quick else READERS:
        for kind in ("flip", "truncate", "zero"):
            for read_only in (False, True):
                tally.trial(*_noticed(*reader, kind, read_only, rng))
    for bug, owner, part, blind, reader in PLANTED:
        with patch.object(owner, part, blind):
            tally.control(not all(_noticed(*reader, "flip", False, rng)[0] for _ in range(4)), bug)
    return tally


def _noticed(out: str, stage: str, argument: str, kind: str, read_only: bool, rng: random.Random) -> tuple[bool, str]:
    names = READ.get(argument, READ.get(out))
    files = [path for path in sorted(Path(out).rglob("*")) if path.is_file() and path.stat().st_size]
    path = rng.choice([Path(out, name) for name in names] if names else files)
    with _Damaged(path, kind, read_only, rng):
        status, text = run_stage(stage, *([argument] if argument else []))
    ok = status == 1 and str(path) in text and "Traceback" not in text and text.count("error:") == 1
    return ok, f"{kind} of {path} before {stage}: status {status}: {text[-300:]}"


class _Damaged:
    """Change a file's bytes for the block, but not its times."""

    def __init__(self, path: Path, kind: str, read_only: bool, rng: random.Random) -> None:
        self.path, self.kind, self.read_only, self.at = path, kind, read_only, rng.random()
        self.bit = 1 << rng.randrange(8)

    def __enter__(self) -> None:
        self.sound, status = self.path.read_bytes(), self.path.stat()
        data, at = bytearray(self.sound), int(self.at * len(self.sound))
        if self.kind == "flip":
            data[at] ^= self.bit
        elif self.kind == "truncate":
            del data[at:]
        else:
            end = min(len(data), at + 8)
            data[at:end] = bytes(end - at)
            data[at] = 1 if data == self.sound else data[at]  # if there were zeros already
        # Write a new file, since the old one may be a hard link to the cache.
        self.path.unlink()
        self.path.write_bytes(data)
        self.path.chmod(0o444 if self.read_only else 0o644)
        os.utime(self.path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def __exit__(self, *_: object) -> None:
        self.path.chmod(0o644)
        self.path.write_bytes(self.sound)


def _in_cache(tally: Tally, seed: int, project: Path) -> None:
    """Damage an object of the cache, let DVC check it out, and run the next stage; then follow the error's remedy."""
    tiny_project(project)
    commit(project, "tiny")
    must(project, "dvc", "repro", "train@baseline")
    rng = random.Random(seed)
    for out, name, stage in (
        ("data/raw", "sst-dev.csv", "prepare"),
        ("data/prepared", "dev/sst/labels.npy", "train@baseline"),
        ("models/pretrained", "model.safetensors", "train@baseline"),
    ):
        for kind in ("flip", "zero"):
            sound = (project / out / name).read_bytes()
            objects = [p for p in (project / ".dvc/cache").rglob("*") if p.is_file() and p.read_bytes() == sound]
            with _Damaged(objects[0], kind, True, rng):
                shutil.rmtree(project / out)
                call(project, "dvc", "checkout", "-f", out)
                came_back = (project / out / name).exists() and (project / out / name).read_bytes() != sound
                status, output = call(project, "dvc", "repro", "-f", "-s", stage)
            noticed = "its bytes changed" in output if came_back else "corrupt" in output or status == 0
            what = f"{kind} of {out}/{name} in the cache (came back: {came_back}): status {status}: {output[-400:]}"
            tally.trial(noticed and (status != 0) == came_back, what)
            # Follow the remedy literally; if DVC noticed the damage itself, nothing is left to do.
            for copy, repro in re.findall(r"(?:remove (\S+), its copy in DVC's cache, then )?run `dvc (.+?)`", output):
                if copy:
                    (project / copy).unlink()
                must(project, "dvc", *repro.split())
            status, output = call(project, "dvc", "repro", "train@baseline")
            whole = status == 0 and (project / out / name).read_bytes() == sound
            tally.trial(whole, f"the remedy after {what}: status {status}: {output[-300:]}")


def _blind(*_: Any) -> None: ...


PLANTED: list[tuple[str, Any, str, Any, tuple[str, str, str]]] = [
    ("raw files not compared", prepare, "check_seal", _blind, READERS[0]),
    ("prepared files not compared", arrays, "check_seal", _blind, READERS[3]),
    ("weights not compared", store, "sha256_file", lambda _: Same(""), READERS[4]),
    ("results not compared", results, "check_seal", _blind, READERS[7]),
]
