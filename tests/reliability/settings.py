"""Figure 10: every key of params.yaml that is misspelt, missing, mistyped or out of range is refused by name, also through DVC.

Limits and allowed words are those of tests/test_params.py, which also tests contradictions.
"""

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
from tests import test_params
from tests.project import ROOT, call, commit, tiny_project
from tests.reliability.trial import Tally

Key = tuple[str, ...]
RUNS = ("baseline", "best_performance", "dora_r4")  # together they have every key
PROFILE = "trial"
# A run may lack these, as it then inherits the budget's or has none; all keys of `workflow` have defaults.
OPTIONAL = ("adapter", "epochs", "epoch_end", "batch_size", "learning_rate", "label_smoothing")
yaml = YAML(typ="safe")

# By the last part of a key: values just beyond its limits, and the keys whose values are words from a list.
BEYOND: dict[str, list[Any]] = {}
for key, _, beyond in test_params.LIMITS:
    BEYOND.setdefault(key.rpartition(".")[2], []).extend(beyond)
WORDS = {key.rpartition(".")[2] for key, _ in test_params.WORDS} | {"encoding", "method", "objective"}


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """Every key, one fault at a time; through `dvc exp run -S` in the full tier."""
    tally = Tally(10, "faulty settings", "100% refused, with the nearest valid key", seed)
    tree = _written_out()
    rng = random.Random(seed)
    faults = list(_faults(tree, rng))
    chosen = rng.sample(faults, 150) if quick else faults
    for case in chosen:
        tally.trial(*_judged(folder, *case))
    error = _error(folder, tree)
    tally.trial(not error, f"the settings as they are: {error}")
    for bug, ignored in IGNORED.items():
        lenient = SimpleNamespace(model_validate=_ignoring(ignored), model_fields=Params.model_fields)
        with patch.object(params, "Params", lenient):
            tally.control(not all(_judged(folder, *case)[0] for case in rng.sample(faults, len(faults))), bug)
    with patch.object(params_errors, "nearest", lambda *_: ""), patch.object(resolve, "nearest", lambda *_: ""):
        tally.control(not all(_judged(folder, *case)[0] for case in rng.sample(faults, 100)), "no nearest key named")
    if not quick:
        _through_dvc(tally, folder / "project")
    tally.note = "not through `dvc exp run -S` in the quick tier" if quick else "DVC refuses unknown keys of -S itself"
    return [tally]


def _written_out() -> dict[str, Any]:
    """The shipped settings of a few runs without inheritance, so that every key occurs once, where its fault must be reported."""
    tree = load_params(ROOT / "params.yaml").model_dump(exclude_none=True)
    tree |= {"profile": PROFILE, "profiles": {PROFILE: {"budget": tree.pop("budget"), "data": {"source": "sample"}}}}
    del tree["data"]["source"]
    tree["runs"] = {name: tree["runs"][name] for name in RUNS}
    for kind in ("tables", "figures"):
        for view, rows in tree[kind].items():
            tree[kind][view] = {row: run for row, run in rows.items() if run in RUNS}
    return tree


def _faults(tree: dict[str, Any], rng: random.Random) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """For every key and fault, (a faulty tree, patterns that the error must match)."""
    for path in _keys(tree):
        last, dotted = path[-1], ".".join(path)
        siblings = _at(tree, path[:-1])
        if not _is_name(path):
            for wrong in _misspelt(last, rng):
                if wrong not in siblings:
                    yield (
                        _renamed(tree, path, wrong),
                        [
                            f"unknown key {'.'.join((*path[:-1], wrong))}",
                            f"'{last}'|missing key {dotted};|'profile'",  # another valid key may be nearer
                        ],
                    )
            if last != "objective" and path[0] != "workflow" and not (path[0] == "runs" and last in OPTIONAL):
                yield _renamed(tree, path, None), ["missing key", last]
        old = siblings[last]
        for bad in ({"a": 1}, ["x", 3], "some text", True, None, 3.25):
            if _other_type(last, old, bad):
                yield _set(tree, path, bad), [dotted.rpartition(".")[0] if last == "objective" else dotted]
        if isinstance(old, int | float | str) and not isinstance(old, bool):
            for bad in BEYOND.get(last, []) + [math.nan, math.inf] * isinstance(old, float):
                yield _set(tree, path, bad), [last]
        if last in WORDS and isinstance(old, str) and last != "start_from":
            for wrong in _misspelt(old, rng):
                # Another valid adapter may be as near.
                yield _set(tree, path, wrong), [dotted, f"{old!r}|'lora'" if last == "method" else f"{old!r}"]


def _is_name(path: Key) -> bool:
    """Whether the user chooses the key: the name of a run, a profile, a table's row, or a task in a run's heads."""
    if len(path) == 4 and path[0] == "runs" and path[2] == "heads":
        return True
    return len(path) > 1 and (path[0] in ("tables", "figures") or (path[0] in ("runs", "profiles") and len(path) == 2))


def _judged(folder: Path, tree: dict[str, Any], words: list[str]) -> tuple[bool, str]:
    error = _error(folder, tree)
    clear = isinstance(error, MtbertError) and all(re.search(word, str(error)) for word in words)
    return clear, f"expected {words}, got: {error!r}"


def _error(folder: Path, tree: dict[str, Any]) -> Exception | None:
    """What is raised when these settings are read; None if they are accepted."""
    path = folder / "params.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(tree, file)
    try:
        load_params(path)
    except Exception as error:
        return error
    return None


def _keys(tree: dict[str, Any], above: Key = ()) -> Iterator[Key]:
    for key, value in tree.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _keys(value, (*above, key))


def _misspelt(word: str, rng: random.Random) -> set[str]:
    """The word with a letter doubled, with two letters exchanged and, if it is long, with one missing."""
    at = rng.randrange(len(word) - 1) if len(word) > 1 else 0
    wrong = {word[: at + 1] + word[at:], word[:at] + word[at : at + 2][::-1] + word[at + 2 :]}
    if len(word) > 4:
        wrong.add(word[:at] + word[at + 1 :])
    return wrong - {word}


def _other_type(key: str, old: Any, bad: Any) -> bool:
    """Whether `bad` is of a type that the key cannot have, judging by its present value."""
    if isinstance(old, bool) or isinstance(bad, bool):
        return type(old) is not type(bad) and key != "cuda_graphs"  # auto or a boolean
    if isinstance(old, dict):
        return not isinstance(bad, dict) and not (key == "adapter" and bad is None)
    if isinstance(bad, float):
        return not isinstance(old, float) and key not in ("sampler", "alpha")
    if isinstance(old, str) and isinstance(bad, str):
        return key in WORDS - {"start_from"}
    return type(old) is not type(bad)


def _at(tree: Any, path: Key) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _set(tree: Any, path: Key, value: Any) -> Any:
    if not path:
        return value
    return {**tree, path[0]: _set(tree.get(path[0], {}), path[1:], value)}


def _renamed(tree: Any, path: Key, name: str | None) -> Any:
    """The tree with the key at `path` renamed, or removed if `name` is None."""
    if len(path) > 1:
        return {**tree, path[0]: _renamed(tree[path[0]], path[1:], name)}
    return {(name if key == path[0] else key): value for key, value in tree.items() if name or key != path[0]}


def _ignoring(kinds: set[str]) -> Any:
    """Params.model_validate that accepts some kinds of fault."""

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
    "text accepted for numbers": {"int_type", "float_type"},
}


def _through_dvc(tally: Tally, project: Path) -> None:
    """The same through DVC, which edits params.yaml and starts the stage, or refuses the key itself."""
    tiny_project(project)
    commit(project, "tiny")
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
