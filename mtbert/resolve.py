"""What params.yaml declares, put together: a profile's sections over the common ones, and each run under its predecessors."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mtbert.errors import MtbertError, nearest, short

# The sections that a profile may overlay, and its budget, which lies under every run.
SECTIONS = ("data", "prepare", "encoder", "compute")
TOP = ("profile", "profiles", *SECTIONS, "tasks", "tables", "figures", "runs")
WATCHED = ("data", "encoder")  # their `path` is a dependency in dvc.yaml, which knows no profiles
SHARED_BUDGET = ("epochs", "epoch_end", "batch_size")  # a run's keys of the same name
# A section that names another kind of thing than its predecessor's does not inherit that one's settings.
KINDS = ("objective", "method")
LONGEST_LINEAGE = 100

Tree = dict[str, Any]
Keys = tuple[str, ...]


class Resolved(NamedTuple):
    """The settings as if every run and section had been written out.

    Attributes:
        origins: for keys of the settings that stand elsewhere in params.yaml, where.
        lineages: each run with its predecessors, itself first.
    """

    settings: Tree
    origins: dict[Keys, Keys]
    lineages: dict[str, list[str]]

    def place(self, location: Sequence[int | str]) -> str:
        """The dotted key of params.yaml that sets the key at `location` of the settings, or would set it."""
        keys = tuple(str(part) for part in location)
        for count in range(len(keys), 0, -1):  # of a key that is missing: where its section is
            if origin := self.origins.get(keys[:count]):
                return ".".join((*origin, *keys[count:]))
        if keys[:1] == ("runs",) and len(keys) > 2:
            return ".".join(("runs", self.lineages[keys[1]][-1], *keys[2:]))
        return ".".join(keys)


def resolve(tree: Tree, profile: str | None = None) -> Resolved:
    """Put params.yaml together.

    Args:
        tree: the file's content.
        profile: the profile to take instead of the one that the file names.

    Raises:
        MtbertError: profiles, predecessors or the shape of a section are not what they must be; names the key.
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
        MtbertError: a predecessor does not exist, a run is among its own predecessors, or they are more than a hundred.
    """
    names = [name]
    while (before := runs[names[-1]].get("from")) is not None:
        where = f"runs.{names[-1]}.from"
        if not isinstance(before, str) or before not in runs:
            raise MtbertError(f"{where}: no run is called {before!r}{nearest(str(before), list(runs))}")
        if before in names:
            raise MtbertError(f"{where}: leads back to the same run ({' <- '.join([*names, before])}); remove it")
        if len(names) == LONGEST_LINEAGE:
            raise MtbertError(f"{where}: {name} has more than {LONGEST_LINEAGE} predecessors; write some of them out")
        names.append(before)
    return names


def _check_shape(tree: Tree) -> None:
    """Mappings where there must be some, before anything is laid over anything."""
    unknown = [f"unknown key {key}{nearest(str(key), TOP)}" for key in tree if key not in (*TOP, "budget")]
    if "budget" in tree:
        unknown.append("unknown key budget; each profile has one: profiles.NAME.budget")
    if unknown:
        raise MtbertError("\n".join(unknown))
    for name in ("profiles", "runs"):
        if name not in tree:
            raise MtbertError(f"missing key {name}; add it, with at least one name below it")
        if not isinstance(tree[name], dict) or not tree[name]:
            raise MtbertError(f"{name}: expected names with settings below them; add at least one")
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
            if key in WATCHED and "path" in part:
                raise MtbertError(
                    f"{where}.path: dvc.yaml reads {key}.path, the same for all profiles; set it there and remove this"
                )


def _expect_mapping(where: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise MtbertError(f"{where}: expected settings below it, found {short(value)}; write them or remove the key")


def _chosen(tree: Tree, profile: Any) -> str:
    if profile is None:
        raise MtbertError(f"missing key profile; add it (valid: {', '.join(tree['profiles'])})")
    if not isinstance(profile, str) or profile not in tree["profiles"]:
        raise MtbertError(
            f"profile: no profile is called {short(profile)}{nearest(str(profile), list(tree['profiles']))}"
        )
    return profile


def _lay(base: Tree, delta: Tree, where: Keys, origins: dict[Keys, Keys], above: Keys = ()) -> None:
    """Lay `delta` over `base`, key by key, and note in `origins` that each key of it stands below `where`."""
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
    """A run with all that it inherits from `names`, itself first, and from the budget; and where its keys stand."""
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
