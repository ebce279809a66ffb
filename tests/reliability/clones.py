"""Figure 15: two clean clones, in different folders and environments, produce the same bytes of the whole tiny graph."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mtbert.params import load_params
from tests.project import ROOT, call, commit, edit, must, shrink, tiny_project
from tests.reliability.trial import Tally

BEST = "best_performance"
# The second clone differs in name and depth of its folder, time zone, locale, hash seed, terminal and umask.
ENVIRONMENTS: list[tuple[str, int, dict[str, str]]] = [
    ("one", 0o022, {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1"}),
    (
        "a deeper folder/öther",
        0o077,
        {"TZ": "Pacific/Kiritimati", "LC_ALL": "POSIX", "PYTHONHASHSEED": "2", "COLUMNS": "40"},
    ),
]
OUTS = ("build", "data", "models", "plots", "results", "metrics", "reports")
TIMES = ("seconds", "tokens_per_second", "finished")
NOT_COMPARED = (
    "reports/*/provenance.json: the time that training took, its speed and its date; reports/*/index.html: the times of the runs, "
    "their sum and the date"
)


class Clone(NamedTuple):
    """A clone, and the umask and variables of the commands that run in it."""

    folder: Path
    umask: int
    variables: dict[str, str]

    def run(self, *command: str) -> str:
        return must(self.folder, *command, umask=self.umask, **self.variables)


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """Compare all files of the graph but DVC's own; in the quick tier, of a graph of one run, one table and one figure."""
    tally = Tally(15, "two clean clones, whole tiny graph", "equal bytes", seed)
    origin, note = _origin(folder)
    clones = [Clone(folder / name, umask, variables) for name, umask, variables in ENVIRONMENTS]
    for clone in clones:
        _clone(origin, clone, seed, quick)
        clone.run("dvc", "repro")
    for name, equal in _compared(clones, OUTS).items():
        tally.trial(equal, f"{name}: the clones differ")
    for plant in PLANTED:
        tally.control(_caught(plant, clones), plant.bug)
    tally.note = f"{note}compared without times ({NOT_COMPARED}){'; one run' if quick else ''}"
    return [tally]


def _origin(folder: Path) -> tuple[Path, str]:
    """The repository to clone: the project's, or a new one of its files if it has none; and a note if that is not HEAD."""
    status, changed = call(ROOT, "git", "status", "--porcelain", "--", "mtbert", "stages", "dvc.yaml", "params.yaml")
    if status == 0:
        return ROOT, "uncommitted changes were left out; " if changed.strip() else ""
    origin = tiny_project(folder / "origin")
    commit(origin, "a copy")
    return origin, "clones of a copy, since the project is not under git; "


def _clone(origin: Path, clone: Clone, seed: int, quick: bool) -> None:
    """Make a clone with tiny settings and no outputs of earlier runs; both clones have the same commit."""
    must(origin, "git", "clone", "-q", "--no-hardlinks", str(origin), str(clone.folder), umask=clone.umask)
    shutil.rmtree(clone.folder / "reports", ignore_errors=True)
    (clone.folder / "dvc.lock").unlink(missing_ok=True)
    shrink(clone.folder, data__sample__seed=seed, runs__baseline__seed=seed)
    if quick:
        best = load_params(clone.folder / "params.yaml").runs[BEST].model_dump(exclude_none=True)
        views = {"tables": {"table4": {BEST: BEST}}, "figures": {"figure4": {BEST: BEST}}}
        edit(clone.folder, runs={BEST: best}, **views)
    commit(clone.folder, "tiny", date="2026-01-01T00:00:00Z")


def _compared(clones: list[Clone], outs: Iterable[str]) -> dict[str, bool]:
    """By file, whether all clones have it with the same content except times."""
    found = [
        {
            path.relative_to(clone.folder).as_posix(): _digest(path)
            for out in outs
            for path in sorted((clone.folder / out).rglob("*"))
            if path.is_file()
        }
        for clone in clones
    ]
    names = sorted(set().union(*found))
    if not names:
        raise RuntimeError(f"nothing to compare in {', '.join(outs)}")
    return {name: len({digests.get(name) for digests in found}) == 1 for name in names}


def _digest(path: Path) -> str:
    """sha256 of a file without its times."""
    data = path.read_bytes()
    if path.name == "provenance.json":
        provenance = json.loads(data)
        runs = {
            run: {key: value for key, value in row.items() if key not in TIMES}
            for run, row in provenance["Runs"].items()
        }
        data = json.dumps({**provenance, "Runs": runs, "Trained": ""}, sort_keys=True).encode()
    elif path.name == "index.html":
        for pattern in (rb"[\d,]+ s</td>", rb"\d+ minutes of training", rb"\d{4}-\d\d-\d\d( to \d{4}-\d\d-\d\d)?"):
            data = re.sub(pattern, b"", data)
    return hashlib.sha256(data).hexdigest()


class Plant(NamedTuple):
    """A bug: `old` in `file` is replaced by `new`; `command` then writes `outs`."""

    bug: str
    file: str
    old: str
    new: str
    command: tuple[str, ...]
    outs: tuple[str, ...]


def _caught(plant: Plant, clones: list[Clone]) -> bool:
    """Whether the clones differ once both have the bug."""
    for clone in clones:
        path = clone.folder / plant.file
        sound = path.read_text(encoding="utf-8")
        if sound.count(plant.old) != 1:
            raise RuntimeError(
                f"{plant.file}: {plant.old!r} does not occur exactly once; plant {plant.bug!r} elsewhere"
            )
        path.write_text(sound.replace(plant.old, plant.new), encoding="utf-8")
        try:
            clone.run("python", "-m", *plant.command)
        finally:
            path.write_text(sound, encoding="utf-8")
    return not all(_compared(clones, plant.outs).values())


FIGURE = (("stages.figure", "figure4"), ("reports/sample/figures",))
# In this order, since each command reads the outputs of earlier ones.
PLANTED = [
    Plant(
        "a page that names its folder",
        "stages/report.py",
        '"Profile": settings["profile"],',
        '"Profile": settings["profile"], "Folder": str(Path.cwd()),',
        ("stages.report",),
        ("reports",),
    ),
    Plant(
        "an SVG with random ids",
        "mtbert/report/figures.py",
        '"svg.hashsalt": "mtbert"',
        '"svg.hashsalt": None',
        *FIGURE,
    ),
    Plant(
        "a figure with its date",
        "mtbert/report/figures.py",
        '{"Date": None, "Creator": None',
        '{"Creator": None',
        *FIGURE,
    ),
    Plant(
        "a table in the order of a set",
        "mtbert/report/text.py",
        "for cell in row])\n        for row in table.rows",
        "for cell in row])\n        for row in set(table.rows)",
        ("stages.table", "table4"),
        ("reports/sample/tables",),
    ),
    Plant(
        "a seed from the clock",
        "mtbert/pipeline/models.py",
        "torch.manual_seed(settings.seed)",
        "torch.manual_seed(__import__('time').time_ns() % 2**32)",
        ("stages.train", BEST),
        (f"models/{BEST}",),
    ),
    Plant(
        "a seed from a string's hash",
        "mtbert/sample/generate.py",
        "PortableRandom(seed, number, part),",
        "PortableRandom(seed, number, hash(split) % 1000),",
        ("stages.fetch",),
        ("data/raw",),
    ),
]
