"""What params.yaml declares, put together: a profile's sections over the common ones, and each run under its predecessors."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mtbert.errors import MtbertError, nearest

# The sections that a profile may overlay, and its budget, which lies under every run.
SECTIONS = ("data", "prepare", "encoder", "compute")
BUDGET = ("epochs", "epoch_end", "batch_size", "learning_rate", "adapter_learning_rate", "rest_learning_rate")
# A section that names another kind of thing than its predecessor's does not inherit that one's settings.
KINDS = ("objective", "method")

Tree = dict[str, Any]


class Resolved(NamedTuple):
    """The settings as if every run and section had been written out, and the file that they come from."""

    settings: Tree
    raw: Tree
    profile: str

    def place(self, location: Sequence[int | str]) -> str:
        """Where in the file the key at `location` of the settings is set, or would be: a dotted key of params.yaml."""
        keys = [str(part) for part in location]
        if keys[:1] == ["runs"] and len(keys) > 2:
            return self._place_in_run(keys[1], keys[2:])
        overlay = self.raw["profiles"][self.profile]
        if keys[:1] == ["budget"] or (len(keys) > 1 and _holds(overlay, keys)):
            return ".".join(["profiles", self.profile, *keys])
        return ".".join(keys)

    def _place_in_run(self, run: str, keys: list[str]) -> str:
        for count in range(len(keys), 0, -1):  # of a key that is missing: where its section is
            for name in lineage(self.raw["runs"], run):
                if _holds(self.raw["runs"][name], keys[:count]):
                    return ".".join(["runs", name, *keys])
            budget = _budget_key(keys, self.settings["runs"][run].get("adapter"))
            if budget and _holds(self.raw["profiles"][self.profile].get("budget"), [budget]):
                return ".".join(["profiles", self.profile, "budget", budget])
        return ".".join(["runs", lineage(self.raw["runs"], run)[-1], *keys])


def resolve(tree: Tree, profile: str | None = None) -> Resolved:
    """Put params.yaml together.

    Args:
        tree: the file's content.
        profile: the profile to take instead of the one that the file names.

    Raises:
        MtbertError: profiles, predecessors or the shape of a section are not what they must be; names the key.
    """
    if "budget" in tree:
        raise MtbertError("unknown key budget; each profile has one: profiles.NAME.budget")
    for name in ("profiles", "runs"):
        if not isinstance(tree.get(name), dict) or not tree[name]:
            raise MtbertError(f"{name}: expected a mapping with at least one key; add it")
        for key, value in tree[name].items():
            if not isinstance(key, str) or not isinstance(value, dict):
                raise MtbertError(f"{name}.{key}: expected a name with settings below it, found {value!r}")
    chosen = profile if profile is not None else tree.get("profile")
    if chosen not in tree["profiles"]:
        raise MtbertError(f"profile: no profile is called {chosen!r}{nearest(str(chosen), list(tree['profiles']))}")
    overlay = tree["profiles"][chosen]
    for key, part in overlay.items():
        if key not in (*SECTIONS, "budget"):
            raise MtbertError(f"unknown key profiles.{chosen}.{key}{nearest(str(key), [*SECTIONS, 'budget'])}")
        if not isinstance(part, dict):
            raise MtbertError(f"profiles.{chosen}.{key}: expected settings below it, found {part!r}")
    settings = {key: value for key, value in tree.items() if key != "profiles"}
    settings |= {"profile": chosen, "budget": overlay.get("budget", {})}
    for key in SECTIONS:
        if key in overlay:
            settings[key] = merged(settings.get(key) or {}, overlay[key])
    settings["runs"] = {name: _run(tree["runs"], name, overlay.get("budget", {})) for name in tree["runs"]}
    return Resolved(settings, tree, str(chosen))


def lineage(runs: Mapping[str, Tree], name: str) -> list[str]:
    """The run, its predecessor, that one's predecessor, and so on.

    Raises:
        MtbertError: a predecessor does not exist, or a run is among its own predecessors.
    """
    names = [name]
    while (before := runs[names[-1]].get("from")) is not None:
        if before not in runs:
            raise MtbertError(f"runs.{names[-1]}.from: no run is called {before!r}{nearest(str(before), list(runs))}")
        if before in names:
            raise MtbertError(
                f"runs.{before}.from: its predecessors lead back to itself ({' <- '.join([*names, before])})"
            )
        names.append(before)
    return names


def merged(base: Any, delta: Any) -> Any:
    """`delta` laid over `base`, key by key."""
    if not isinstance(base, dict) or not isinstance(delta, dict):
        return delta
    if any(kind in delta and delta[kind] != base.get(kind) for kind in KINDS):
        return delta
    return {**base, **{key: merged(base[key], value) if key in base else value for key, value in delta.items()}}


def _run(runs: Mapping[str, Tree], name: str, budget: Tree) -> Tree:
    settings: Tree = {key: budget[key] for key in BUDGET[:3] if key in budget}
    for ancestor in reversed(lineage(runs, name)):
        settings = merged(settings, {key: value for key, value in runs[ancestor].items() if key != "from"})
    adapter = settings.get("adapter")
    if isinstance(adapter, dict) and "adapter_learning_rate" in budget:
        settings["adapter"] = {"learning_rate": budget["adapter_learning_rate"], **adapter}
    rate = _budget_key(["learning_rate"], adapter)
    return settings if rate not in budget else {"learning_rate": budget[rate], **settings}


def _budget_key(keys: list[str], adapter: Any) -> str | None:
    """The key of a profile's budget that stands for a run's key that the run does not set itself."""
    if keys == ["learning_rate"]:
        return "rest_learning_rate" if adapter else "learning_rate"
    if keys == ["adapter", "learning_rate"]:
        return "adapter_learning_rate"
    return keys[0] if len(keys) == 1 and keys[0] in BUDGET[:3] else None


def _holds(tree: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True
