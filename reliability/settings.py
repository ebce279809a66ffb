"""Figure 10: every key of params.yaml misspelt, mistyped, out of range or contradictory is refused by name, also through DVC."""

import math
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from pydantic import ValidationError
from ruamel.yaml import YAML

from mtbert import params, params_errors, resolve
from mtbert.errors import MtbertError
from mtbert.params import Params, load_params
from reliability.project import ROOT, call, tiny_project
from reliability.trial import Tally, Trial

Path_ = tuple[str, ...]
RUNS = ("baseline", "best_performance", "dora_r4")  # between them they have every key
PROFILE = "trial"
OPTIONAL = ("adapter", "epochs", "epoch_end", "batch_size", "learning_rate")  # a run without them has the budget's
yaml = YAML(typ="safe")

# What each number may not be; a key is named by its end. Kept apart from mtbert.params on purpose.
NUMBERS: dict[str, list[Any]] = {
    "seed": [-1, 2**32, 0.5],
    "label_noise": [-0.1, 1, math.nan],
    "train": [7, 0, -1, 8.5],
    "dev": [7],
    "test": [7],
    "max_tokens": [7, 513, 64.5],
    "layers": [0, -1],
    "hidden": [0, 31],
    "heads": [0, 3],
    "intermediate": [0],
    "positions": [7],
    "margin": [-1.1, 1.1, math.nan],
    "threshold": [0, -1, 5.1, math.nan],
    "epochs": [0, -1, 1.5],
    "batch_size": [0, -3, 2.5],
    **{f"{kind}learning_rate": [0, -1e-5, math.inf, math.nan] for kind in ("", "adapter_", "rest_")},
    "encoder_dropout": [-0.1, 1, 1.5, math.nan],
    "head_dropout": [-0.1, 1, math.nan],
    "rank": [0, -1, 1.5],
    "alpha": [0, -1, math.inf],
    "dropout": [-0.1, 1, math.nan],
    "epoch_end": [0, -1, 1.5, "depleted"],
    "sampler": [-0.5, math.inf, math.nan, "squareroot", "random"],
    "threads": [0, -1, 1.5, "all"],
}
WORDS = {
    "source",
    "on_bad_row",
    "leakage",
    "preprocess",
    "device",
    "precision",
    "pooling",
    "encoding",
    "method",
    "norm_gradient",
    "objective",
}
CONTRADICTIONS: list[dict[str, Any]] = [
    {"encoder.source": "hub"},
    {"encoder.revision": "main", "encoder.source": "hub", "encoder.name": "a/b"},
    {"encoder.source": "local", "encoder.name": "a/b"},
    {"encoder.source": "hub", "encoder.revision": "0" * 40},
    {"encoder.sha256": "abc"},
    {"encoder.random.heads": 5},
    {"runs.baseline.tasks": ["sst", "sst"]},
    {"runs.baseline.tasks": []},
    {"runs.baseline.tasks": ["stss"]},
    {"runs.baseline.heads.stss": {"objective": "cosine"}},
    {"runs.baseline.heads.sts": {"objective": "cosine"}},
    {"runs.baseline.heads.sst.features": ["v"]},
    {"runs.baseline.encoding": "cross"},
    {"runs.baseline.encoding": "both"},
    {"runs.best_performance.encoding": "bi"},
    {"runs.best_performance.heads.quora.features": ["u", "u"]},
    {"runs.best_performance.heads.quora.features": []},
    {"runs.best_performance.heads.quora.features": ["w"]},
    {"runs.best_performance.heads.sts": {"objective": "mse", "features": ["u"], "clamp": True, "margin": 0.0}},
    {"runs.best_performance.heads.sts.objective": "cosine_embedding"},
    {"runs.dora_r4.adapter.start_from": "nothing"},
    {"runs.dora_r4.adapter.start_from": "dora_r4"},
    {"runs.dora_r4.adapter.start_from": "baseline"},
    {"runs.dora_r4.from": "best_perfomance"},
    {"runs.dora_r4.from": "dora_r4"},
    {"runs.best_performance.from": "dora_r4", "runs.dora_r4.from": "best_performance"},
    {"tables.table1.baseline": "baselin"},
    {"figures.figure3.full": "nothing"},
    {"profile": "tril"},
    {"profiles.trial.data.path": "x"},
    *({f"runs.{name}": {}} for name in ("Upper", "pretrained", "a b", "")),
    *({f"runs.{name}": {"from": "baseline"}} for name in ("Upper", "pretrained", "a b", "")),
]


def run(quick: bool, seed: int, folder: Path) -> list[Trial]:
    """Every key, one fault at a time; through `dvc exp run -S` in the full tier."""
    tally = Tally(10, "faulty settings", "100% refused, with the nearest valid key", seed)
    tree = _written_out()
    rng = random.Random(seed)
    faults = list(_faults(tree, rng))
    chosen = rng.sample(faults, 150) if quick else faults
    for case in chosen:
        tally.trial(*_judged(folder, *case))
    with tally.no_error("the settings as they are"):
        _load(folder, tree)
    for bug, ignored in IGNORED.items():
        lenient = SimpleNamespace(model_validate=_ignoring(ignored), model_fields=Params.model_fields)
        with patch.object(params, "Params", lenient):
            tally.control(not all(_judged(folder, *case)[0] for case in rng.sample(faults, len(faults))), bug)
    with patch.object(params_errors, "nearest", lambda *_: ""), patch.object(resolve, "nearest", lambda *_: ""):
        tally.control(not all(_judged(folder, *case)[0] for case in rng.sample(faults, 100)), "no nearest key named")
    if not quick:
        _through_dvc(tally, folder / "project")
    return [
        tally.done(
            "not through `dvc exp run -S` in the quick tier" if quick else "DVC refuses unknown keys of -S itself"
        )
    ]


def _written_out() -> dict[str, Any]:
    """The shipped settings of a few runs, nothing inherited: every key stands once, where its fault must be reported."""
    tree = load_params(ROOT / "params.yaml").model_dump(exclude_none=True)
    tree |= {"profile": PROFILE, "profiles": {PROFILE: {"budget": tree.pop("budget"), "data": {"source": "sample"}}}}
    del tree["data"]["source"]
    tree["runs"] = {name: tree["runs"][name] for name in RUNS}
    for kind in ("tables", "figures"):
        for view, rows in tree[kind].items():
            tree[kind][view] = {row: run for row, run in rows.items() if run in RUNS}
    return tree


def _faults(tree: dict[str, Any], rng: random.Random) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """(a faulty tree, patterns that the error must hold) for every key and fault."""
    for path in _keys(tree):
        last, told = path[-1], ".".join(path)
        siblings = _at(tree, path[:-1])
        if not _is_name(path):
            for wrong in _misspelt(last, rng):
                if wrong not in siblings:
                    yield (
                        _renamed(tree, path, wrong),
                        [
                            f"unknown key {'.'.join((*path[:-1], wrong))}",
                            f"'{last}'|missing key {told};",  # another valid key may be nearer
                        ],
                    )
            if last != "objective" and not (path[0] == "runs" and last in OPTIONAL):
                yield _renamed(tree, path, None), ["missing key", last]
        old = siblings[last]
        for bad in ({"a": 1}, ["x", 3], "some text", True, None, 3.25):
            if _other_type(last, old, bad):
                yield _set(tree, path, bad), [told.rpartition(".")[0] if last == "objective" else told]
        for bad in NUMBERS.get(last, []) if isinstance(old, int | float | str) and not isinstance(old, bool) else []:
            yield _set(tree, path, bad), [last]
        if last in WORDS:
            for wrong in _misspelt(str(old), rng):
                yield _set(tree, path, wrong), [told, f"{old!r}"]
    for changes in CONTRADICTIONS:
        changed = tree
        for key, value in changes.items():
            changed = _set(changed, tuple(key.split(".")), value)
        yield changed, [next(iter(changes)).split(".")[:2][-1]]


def _is_name(path: Path_) -> bool:
    """Whether the user makes the key up: a run, a profile, a table's row; a task, by which a run's heads are named."""
    if len(path) == 4 and path[0] == "runs" and path[2] == "heads":
        return True
    return len(path) > 1 and (path[0] in ("tables", "figures") or (path[0] in ("runs", "profiles") and len(path) == 2))


def _judged(folder: Path, tree: dict[str, Any], words: list[str]) -> tuple[bool, str]:
    try:
        _load(folder, tree)
    except MtbertError as error:
        return all(re.search(word, str(error)) for word in words), f"expected {words}, told: {error}"
    except Exception as error:
        return False, f"{words}: {type(error).__name__}: {error}"
    return False, f"{words}: accepted"


def _load(folder: Path, tree: dict[str, Any]) -> Params:
    path = folder / "params.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(tree, file)
    return load_params(path)


def _keys(tree: dict[str, Any], above: Path_ = ()) -> Iterator[Path_]:
    for key, value in tree.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _keys(value, (*above, key))


def _misspelt(word: str, rng: random.Random) -> set[str]:
    """A letter doubled, two exchanged, and one left out if enough are left."""
    at = rng.randrange(len(word) - 1) if len(word) > 1 else 0
    wrong = {word[: at + 1] + word[at:], word[:at] + word[at : at + 2][::-1] + word[at + 2 :]}
    if len(word) > 4:
        wrong.add(word[:at] + word[at + 1 :])
    return wrong - {word}


def _other_type(key: str, old: Any, bad: Any) -> bool:
    """Whether `bad` is of a type that the key cannot have, going by its present value."""
    if isinstance(old, bool) or isinstance(bad, bool):
        return type(old) is not type(bad)
    if isinstance(old, dict):
        return not isinstance(bad, dict) and not (key == "adapter" and bad is None)
    if isinstance(bad, float):
        return not isinstance(old, float) and key not in ("sampler", "alpha")
    if isinstance(old, str) and isinstance(bad, str):
        return key in WORDS | {"sampler", "epoch_end", "threads"}
    return type(old) is not type(bad)


def _at(tree: Any, path: Path_) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _set(tree: Any, path: Path_, value: Any) -> Any:
    if not path:
        return value
    return {**tree, path[0]: _set(tree.get(path[0], {}), path[1:], value)}


def _renamed(tree: Any, path: Path_, name: str | None) -> Any:
    """The tree with the key at `path` called `name`, or left out."""
    if len(path) > 1:
        return {**tree, path[0]: _renamed(tree[path[0]], path[1:], name)}
    return {(name if key == path[0] else key): value for key, value in tree.items() if name or key != path[0]}


def _ignoring(kinds: set[str]) -> Any:
    """Params.model_validate that lets some kinds of fault pass."""

    def validate(tree: Any) -> Any:
        try:
            return Params.model_validate(tree)
        except ValidationError as error:
            if {detail["type"] for detail in error.errors()} <= kinds:
                return None
            raise

    return validate


IGNORED = {
    "unknown keys accepted": {"extra_forbidden"},
    "missing keys accepted": {"missing"},
    "ranges not checked": {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"},
    "words not checked": {"literal_error"},
    "contradictions accepted": {"value_error"},
    "text accepted for numbers": {"int_type", "float_type"},
}


def _through_dvc(tally: Tally, project: Path) -> None:
    """The same through DVC, which changes params.yaml and starts the stage (or refuses the key itself)."""
    tiny_project(project)
    for command in (("git", "init", "-q"), ("git", "add", "-A"), ("git", "commit", "-q", "-m", "tiny")):
        call(project, *command)
    sound = (project / "params.yaml").read_bytes()
    for setting, word in (
        ("data.sample.seeds=1", "seeds"),
        ("+data.sample.seeds=1", "unknown key data.sample.seeds; did you mean 'seed'?"),
        (
            "profiles.sample.data.source=smaple",
            "profiles.sample.data.source: 'smaple' is not valid; did you mean 'sample'?",
        ),
        ("data.sample.seed=-1", "data.sample.seed"),
        ("data.sample.label_noise=much", "data.sample.label_noise"),
        ("runs.baseline.encoding=both", "runs.baseline"),
        ("+runs.dora_r4.encoding=bi", "runs.dora_r4: quora uses u, v, c, which needs encoding: both"),
        ("profile=corse", "profile: no profile is called 'corse'; did you mean 'course'?"),
        ("+runs.baseline.poling=mean", "unknown key runs.baseline.poling; did you mean 'pooling'?"),
    ):
        status, output = call(project, "dvc", "exp", "run", "-S", setting, "plan")
        clear = status != 0 and word in output and "Traceback" not in output
        tally.trial(clear, f"dvc exp run -S {setting}: {output[-300:]}")
        (project / "params.yaml").write_bytes(sound)
    shutil.rmtree(project)
