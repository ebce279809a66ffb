"""Profiles and inheritance are resolved, and DVC's `-S KEY=VALUE` equals an edit of that key by hand."""

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides  # type: ignore[import-untyped]

from mtbert.resolve import Tree, lineage, resolve
from mtbert.yamlfile import read_yaml

Keys = tuple[str, ...]


def tree_of(**runs: Any) -> Tree:
    budget = {"epochs": 1, "learning_rate": 1.0, "adapter_learning_rate": 2.0, "rest_learning_rate": 3.0}
    profiles = {
        "a": {"budget": budget},
        "b": {"budget": {**budget, "epochs": 5}, "data": {"source": "b", "x": {"y": 2}}},
    }
    return {"profile": "a", "profiles": profiles, "data": {"source": "a", "x": {"y": 1, "z": 1}}, "runs": runs}


def runs_of(**runs: Any) -> Tree:
    return resolve(tree_of(**runs)).settings["runs"]


def test_a_profile_lies_over_the_sections_and_its_budget_under_the_runs() -> None:
    tree = tree_of(one={}, two={"from": "one", "epochs": 9, "learning_rate": 0.5})
    before = copy.deepcopy(tree)
    settings = resolve(tree).settings
    assert settings["data"] == {"source": "a", "x": {"y": 1, "z": 1}}
    assert settings["runs"] == {
        "one": {"epochs": 1, "learning_rate": 1.0},
        "two": {"epochs": 9, "learning_rate": 0.5},
    }
    other = resolve(tree, "b").settings
    assert other["data"] == {"source": "b", "x": {"y": 2, "z": 1}}
    assert (other["profile"], other["runs"]["one"]["epochs"], other["runs"]["two"]["epochs"]) == ("b", 5, 9)
    assert tree == before, "resolving changes nothing in what it is given"


def test_an_adapter_brings_the_rates_of_adapters() -> None:
    dora = {"method": "dora", "rank": 4}
    runs = runs_of(
        plain={},
        adapted={"from": "plain", "adapter": dora},
        own={"from": "adapted", "adapter": {"learning_rate": 9.0}, "learning_rate": 8.0},
        unadapted={"from": "adapted", "adapter": None},
        again={"from": "unadapted", "adapter": {"rank": 1}},
    )
    assert runs["plain"]["learning_rate"] == runs["unadapted"]["learning_rate"] == 1.0
    assert runs["adapted"]["learning_rate"] == 3.0
    assert runs["adapted"]["adapter"] == dora | {"learning_rate": 2.0}
    assert (runs["own"]["learning_rate"], runs["own"]["adapter"]["learning_rate"]) == (8.0, 9.0)
    assert runs["again"]["adapter"] == {"rank": 1, "learning_rate": 2.0}, "nothing comes from behind a null"


# ---- -S equals the edit


def test_a_section_of_another_kind_starts_anew() -> None:
    head = {"objective": "bce", "features": ["u"]}
    runs = runs_of(
        one={"quora": head},
        same={"from": "one", "quora": {"objective": "bce", "features": ["v"]}},
        other={"from": "one", "quora": {"objective": "cosine"}},
        back={"from": "other", "quora": {"objective": "bce"}},
    )
    assert runs["same"]["quora"] == {"objective": "bce", "features": ["v"]}
    assert runs["other"]["quora"] == {"objective": "cosine"}
    assert runs["back"]["quora"] == {"objective": "bce"}


def test_where_a_key_stands() -> None:
    tree = tree_of(
        two={"from": "one", "adapter": {"rank": 8}},
        one={"adapter": {"method": "dora", "rank": 4}, "quora": {"objective": "bce", "features": ["u"]}},
        three={"from": "two", "quora": {"objective": "cosine"}},
    )
    place = resolve(tree, "b").place
    for location, where in {
        "profile": "profile",
        "budget.epochs": "profiles.b.budget.epochs",
        "data.source": "profiles.b.data.source",
        "data.x.y": "profiles.b.data.x.y",
        "data.x.z": "data.x.z",
        "data.missing": "data.missing",
        "runs.three": "runs.three",
        "runs.three.adapter.rank": "runs.two.adapter.rank",
        "runs.three.adapter.method": "runs.one.adapter.method",
        "runs.three.adapter.missing": "runs.one.adapter.missing",
        "runs.two.quora.features.0": "runs.one.quora.features.0",
        "runs.three.quora.features": "runs.three.quora.features",
        "runs.three.missing": "runs.one.missing",
        "runs.three.epochs": "profiles.b.budget.epochs",
        "runs.three.batch_size": "profiles.b.budget.batch_size",
        "runs.three.learning_rate": "profiles.b.budget.rest_learning_rate",
        "runs.three.adapter.learning_rate": "profiles.b.budget.adapter_learning_rate",
        "tables.table1.x": "tables.table1.x",
    }.items():
        assert place(location.split(".")) == where


@pytest.fixture(scope="module")
def shipped(root: Path) -> Tree:
    tree: Tree = read_yaml(root / "params.yaml")
    return tree


@pytest.fixture
def set_param(root: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of params.yaml, changed as `dvc exp run -S A -S B ...` does before it starts a stage."""

    def changed(*overrides: str) -> Path:
        path = tmp_path / "params.yaml"
        path.write_bytes((root / "params.yaml").read_bytes())
        apply_overrides(path, list(overrides))
        return path

    return changed


def leaves(tree: Any, above: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    for key, value in tree.items():
        yield from leaves(value, (*above, key)) if isinstance(value, dict) else [((*above, key), value)]


def another(value: Any) -> Any:
    """Another value of the same type; whether the models accept it does not matter here."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [*value[:-1], "|x-y|"]
    return "other" if isinstance(value, str) else value + 1


def by_hand(tree: Tree, keys: Keys, value: Any) -> Tree:
    key, *rest = keys
    return {**tree, key: by_hand(tree.get(key, {}), tuple(rest), value) if rest else value}


def override(keys: Keys, value: Any, plus: str = "") -> str:
    return f"{plus}{'.'.join(keys)}={json.dumps(value)}"


def get(tree: Any, keys: Keys) -> Any:
    for key in keys:
        if not isinstance(tree, dict) or key not in tree:
            return None
        tree = tree[key]
    return tree


@pytest.mark.parametrize(
    "part", ["profile", "data", "prepare", "encoder", "compute", "tables", "figures", "profiles", "runs"]
)
def test_setting_keys_changes_their_lines_alone(
    root: Path, shipped: Tree, set_param: Callable[..., Path], part: str
) -> None:
    before = (root / "params.yaml").read_text(encoding="utf-8").splitlines()
    changes = {keys: another(old) for keys, old in leaves({part: shipped[part]})}
    path, edited = set_param(*(override(keys, new) for keys, new in changes.items())), shipped
    for keys, new in changes.items():
        edited = by_hand(edited, keys, new)
    assert read_yaml(path) == edited
    after = path.read_text(encoding="utf-8").splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == len(changes), changed
    for old, new in changed:
        assert new.partition(":")[0] == old.partition(":")[0] or new.strip(" -'") == "|x-y|"
        assert old.partition("#")[2] == new.partition("#")[2], "the comment stays"


def test_setting_what_runs_inherit_only_adds_lines(root: Path, shipped: Tree, set_param: Callable[..., Path]) -> None:
    resolved = resolve(shipped).settings["runs"]
    changes = {keys: another(value) for keys, value in leaves({"runs": resolved}) if get(shipped, keys) is None}
    assert {name for _, name, *_ in changes} == set(resolved)
    path, edited = set_param(*(override(keys, new, "+") for keys, new in changes.items())), shipped
    for keys, new in changes.items():
        edited = by_hand(edited, keys, new)
    assert read_yaml(path) == edited
    before, after = (file.read_text(encoding="utf-8").splitlines() for file in (root / "params.yaml", path))
    rest = iter(after)
    assert all(line in rest for line in before), "comments and neighbours stay where they are"
    assert all(line.startswith("    ") and "#" not in line for line in Counter(after) - Counter(before))


def test_a_change_reaches_the_run_and_the_heirs_that_do_not_override_it(shipped: Tree) -> None:
    before = resolve(shipped).settings
    heirs = {
        name: [run for run in shipped["runs"] if name in lineage(shipped["runs"], run)] for name in shipped["runs"]
    }
    for name in shipped["runs"]:
        for keys, old in leaves({"runs": {name: before["runs"][name]}}):
            after = resolve(by_hand(shipped, keys, another(old))).settings
            assert {key: after[key] for key in after if key != "runs"} == {
                key: before[key] for key in before if key != "runs"
            }
            inner = keys[2:]
            for run in shipped["runs"]:
                between = lineage(shipped["runs"], run)
                overriding = between[: between.index(name)] if run in heirs[name] else []
                reached = run in heirs[name] and not any(_sets(shipped["runs"][by], inner) for by in overriding)
                assert (after["runs"][run] != before["runs"][run]) == reached, (keys, run)
                if reached and inner[-1] not in ("objective", "method"):
                    assert after["runs"][run] == by_hand(before["runs"][run], inner, another(old)), (keys, run)


def _sets(run: Tree, keys: Keys) -> bool:
    """Whether the run itself sets the key, or starts its section anew."""
    section = get(run, keys[:-1]) if len(keys) > 1 else run
    return section is not None and (keys[-1] in section or (len(keys) > 1 and "objective" in section))


@pytest.mark.parametrize(
    ("change", "reached"),
    [
        ("profiles.sample.budget.learning_rate=0.5", {"learning_rate": "plain"}),
        ("profiles.sample.budget.rest_learning_rate=0.5", {"learning_rate": "adapted"}),
        ("profiles.sample.budget.adapter_learning_rate=0.5", {"adapter": "adapted"}),
        ("profiles.sample.budget.batch_size=7", {"batch_size": "all"}),
        ("profiles.course.budget.batch_size=7", {}),
        (
            "profile=course",
            {
                "epochs": "all",
                "epoch_end": "all",
                "batch_size": "all",
                "learning_rate": "adapted",
                "adapter": "adapted",
            },
        ),
        ("~runs.dora_r8.adapter", {"adapter": ["dora_r8"]}),
        ("runs.dora_r32.adapter=null", {"adapter": ["dora_r32"], "learning_rate": ["dora_r32"]}),
    ],
)
def test_what_else_is_set(shipped: Tree, set_param: Callable[..., Path], change: str, reached: dict[str, Any]) -> None:
    before = resolve(shipped).settings["runs"]
    after = resolve(read_yaml(set_param(change))).settings["runs"]
    adapted = {name for name, run in before.items() if run.get("adapter")}
    groups = {"all": set(before), "adapted": adapted, "plain": set(before) - adapted}
    for key in {key for run in before.values() for key in run}:
        wanted = reached.get(key, [])
        changed = {name for name in before if before[name].get(key) != after[name].get(key)}
        assert changed == (groups[wanted] if isinstance(wanted, str) else set(wanted)), key
