"""Applies the profile and inheritance: lays a profile's sections over the common ones, and each run over its predecessors."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mtbert.errors import MtbertError, nearest, short

# The sections that a profile may override. Its budget gives defaults to every run.
SECTIONS = ("data", "prepare", "encoder", "compute", "workflow")
TOP = ("profile", "profiles", *SECTIONS, "tasks", "tables", "figures", "seeds", "runs")
IN_DVC_YAML = ("data", "encoder")  # dvc.yaml depends on their `path`, and does not know about profiles
SHARED_BUDGET = ("epochs", "epoch_end", "batch_size")  # keys that have the same name in a budget and in a run
# Keys that select what kind of section it is. If they differ from the predecessor's, the section inherits nothing.
KINDS = ("objective", "method")
LONGEST_LINEAGE = 100

Tree = dict[str, Any]
Keys = tuple[str, ...]


class Resolved(NamedTuple):
    """The settings with every run and section written out in full.

    Attributes:
        origins: for keys set elsewhere in params.yaml: path in `settings` -> path in params.yaml.
        lineages: each run's name, its predecessor's, and so on.
    """

    settings: Tree
    origins: dict[Keys, Keys]
    lineages: dict[str, list[str]]

    def place(self, location: Sequence[str]) -> str:
        """The dotted key in params.yaml that sets, or would set, the key at `location` of the settings."""
        keys = tuple(location)
        for count in range(len(keys), 0, -1):  # for a missing key, its section
            if origin := self.origins.get(keys[:count]):
                return ".".join((*origin, *keys[count:]))
        if keys[:1] == ("runs",) and len(keys) > 2:
            return ".".join(("runs", self.lineages[keys[1]][-1], *keys[2:]))
        return ".".join(keys)


def resolve(tree: Tree, profile: str | None = None) -> Resolved:
    """Apply the profile and inheritance to the content of params.yaml.

    Args:
        tree: the file's content.
        profile: the profile to use instead of the one set in the file.

    Raises:
        MtbertError: a profile or predecessor does not exist, or a section is not a mapping; the message names the key.
    """
    _check_shape(tree)
    chosen = _chosen(tree, tree.get("profile") if profile is None else profile)
    overlay = tree["profiles"][chosen]
    budget = overlay.get("budget", {})
    settings = {key: value for key, value in tree.items() if key not in (*SECTIONS, "profiles")}
    settings |= {"profile": chosen, "budget": budget, "runs": {}}
    origins: dict[Keys, Keys] = {("budget",): ("profiles", chosen, "budget")}
    for key in SECTIONS:
        for where, part in (((), tree), (("profiles", chosen), overlay)):
            if key in part:
                _lay(settings, {key: part[key]}, where, origins)
    tasks = tree.get("tasks", {})
    lineages = {name: lineage(tree["runs"], name) for name in tree["runs"]}
    settings["predecessors"] = {name: names[1] for name, names in lineages.items() if len(names) > 1}
    for name, names in lineages.items():
        run, found = _run(tree["runs"], names, budget, origins["budget",])
        heads = run.get("heads")
        if declared := {key: part for key, part in tasks.items() if isinstance(heads, dict) and key in heads}:
            run["declared"] = declared
        settings["runs"][name] = run
        origins |= {("runs", name, *keys): place for keys, place in found.items()}
    return Resolved(settings, origins, lineages)


def lineage(runs: Mapping[str, Tree], name: str) -> list[str]:
    """The run, its predecessor, that one's predecessor, and so on.

    Raises:
        MtbertError: a predecessor does not exist, the runs form a cycle, or there are more than `LONGEST_LINEAGE`.
    """
    names = [name]
    while (before := runs[names[-1]].get("from")) is not None:
        where = f"runs.{names[-1]}.from"
        if not isinstance(before, str) or before not in runs:
            raise MtbertError(f"{where}: no run is called {before!r}{nearest(str(before), list(runs))}")
        if before in names:
            raise MtbertError(f"{where}: leads back to the same run ({' <- '.join([*names, before])}); remove it")
        if len(names) == LONGEST_LINEAGE:
            raise MtbertError(f"{where}: {name} has more than {LONGEST_LINEAGE} predecessors; shorten the chain")
        names.append(before)
    return names


def _check_shape(tree: Tree) -> None:
    """Check that sections are mappings, before any is laid over another."""
    unknown = [f"unknown key {key}{nearest(str(key), TOP)}" for key in tree if key not in (*TOP, "budget")]
    if "budget" in tree:
        unknown.append("unknown key budget; each profile has one: profiles.NAME.budget")
    if unknown:
        raise MtbertError("\n".join(unknown))
    for name in ("profiles", "runs"):
        if name not in tree:
            raise MtbertError(f"missing key {name}; add it, with at least one name below it")
        if not isinstance(tree[name], dict) or not tree[name]:
            raise MtbertError(f"{name}: expected a mapping of names to settings; add at least one")
        for key, value in tree[name].items():
            if not isinstance(key, str):
                raise MtbertError(f"{name}.{key}: a name must be text; write it in quotes or give it another name")
            _expect_mapping(f"{name}.{key}", value)
    for key in (*SECTIONS, "tasks"):
        _expect_mapping(key, tree.get(key, {}))
    for name, run in tree["runs"].items():
        if "declared" in run:
            raise MtbertError(f"unknown key runs.{name}.declared; tasks are declared under tasks, at the top")
    for name, overlay in tree["profiles"].items():
        for key, part in overlay.items():
            where = f"profiles.{name}.{key}"
            if key not in (*SECTIONS, "budget"):
                raise MtbertError(f"unknown key {where}{nearest(str(key), [*SECTIONS, 'budget'])}")
            _expect_mapping(where, part)
            if key in IN_DVC_YAML and "path" in part:
                raise MtbertError(
                    f"{where}.path: dvc.yaml uses {key}.path for all profiles; set {key}.path and remove this key"
                )


def _expect_mapping(where: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise MtbertError(f"{where}: expected settings, found {short(value)}; add some below it or remove the key")


def _chosen(tree: Tree, profile: Any) -> str:
    if profile is None:
        raise MtbertError(f"missing key profile; add it (valid: {', '.join(tree['profiles'])})")
    if not isinstance(profile, str) or profile not in tree["profiles"]:
        raise MtbertError(
            f"profile: no profile is called {short(profile)}{nearest(str(profile), list(tree['profiles']))}"
        )
    return profile


def _lay(base: Tree, delta: Tree, where: Keys, origins: dict[Keys, Keys], above: Keys = ()) -> None:
    """Lay `delta`, which is at `where` in params.yaml, over `base`, key by key, and update `origins`."""
    for key, value in delta.items():
        keys, place = (*above, str(key)), (*where, str(key))
        under = base.get(key)
        if not isinstance(value, dict) or not isinstance(under, dict) or _another_kind(under, value):
            for hidden in [known for known in origins if known[: len(keys)] == keys]:
                del origins[hidden]
            origins[keys] = place
            under = base[key] = {} if isinstance(value, dict) else value
        if isinstance(value, dict):
            _lay(under, value, place, origins, keys)


def _another_kind(under: Tree, delta: Tree) -> bool:
    return any(kind in delta and delta[kind] != under.get(kind) for kind in KINDS)


def _run(
    runs: Mapping[str, Tree], names: Sequence[str], budget: Tree, budget_place: Keys
) -> tuple[Tree, dict[Keys, Keys]]:
    """The settings and origins of the run `names[0]`: the budget, under its predecessors `names[1:]`, under its own keys."""
    run: Tree = {key: budget[key] for key in SHARED_BUDGET if key in budget}
    origins: dict[Keys, Keys] = {(key,): (*budget_place, key) for key in SHARED_BUDGET}
    for name in reversed(names):
        _lay(run, {key: value for key, value in runs[name].items() if key != "from"}, ("runs", name), origins)
    adapter = run.get("adapter")
    adapted = isinstance(adapter, dict)
    for keys, section, rate in (
        (("learning_rate",), run, "rest_learning_rate" if adapted else "learning_rate"),
        (("adapter", "learning_rate"), adapter, "adapter_learning_rate"),
    ):
        if isinstance(section, dict) and "learning_rate" not in section:
            origins[keys] = (*budget_place, rate)
            if rate in budget:
                section["learning_rate"] = budget[rate]
    return run, origins
