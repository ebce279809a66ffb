"""The pipeline's graph, read from dvc.yaml: a node per stage, a `foreach` stage included.

`plan` is left out, since every stage depends on it.
"""

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

BOX, PITCH = (128, 34), (158, 54)  # size of a box, and from one to the next, right and down


class Node(NamedTuple):
    """A stage.

    Attributes:
        name: such as `report`, `train@RUN` or `table@NAME`.
        description: from dvc.yaml.
        after: names of the stages that read its outputs.
    """

    name: str
    description: str
    after: list[str]


def read_graph(path: Path) -> list[Node]:
    """The stages of a dvc.yaml, in its order."""
    stages: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))["stages"]
    found: dict[str, tuple[str, list[str], list[str]]] = {}
    for name, stage in stages.items():
        if name == "plan":
            continue
        parts = stage.get("do", stage)
        outs = [_path(entry) for part in ("outs", "metrics", "plots") for entry in parts.get(part, [])]
        found[_name(name, stage)] = parts.get("desc", ""), [_path(entry) for entry in parts.get("deps", [])], outs

    def readers(source: str, outs: list[str]) -> list[str]:
        return [
            target
            for target, (_, deps, _) in found.items()
            if source != target and any(_overlap(out, dep) for out in outs for dep in deps)
        ]

    return [Node(name, description, readers(name, outs)) for name, (description, _, outs) in found.items()]


class Picture(NamedTuple):
    """The graph as a drawing: boxes (name, x, y of the upper left corner), and arrows (from x, y to x, y)."""

    boxes: Sequence[tuple[str, float, float]]
    arrows: Sequence[tuple[float, float, float, float]]
    width: float
    height: float


def draw(graph: Sequence[Node]) -> Picture:
    """Draw each stage to the right of all that it depends on; arrows that others imply are left out."""
    shown = _columns(graph)
    tallest = max(map(len, shown), default=0)
    corners = {
        node.name: (PITCH[0] * column, PITCH[1] * (place + (tallest - len(nodes)) / 2))
        for column, nodes in enumerate(shown)
        for place, node in enumerate(nodes)
    }
    ends = [(corners[node.name], corners[target]) for nodes in shown for node in nodes for target in node.after]
    arrows = [(x + BOX[0], y + BOX[1] / 2, left, top + BOX[1] / 2) for (x, y), (left, top) in ends]
    size = (PITCH[0] * (len(shown) - 1) + BOX[0], PITCH[1] * (tallest - 1) + BOX[1])
    return Picture([(name, *corner) for name, corner in corners.items()], arrows, *size)


def _columns(graph: Sequence[Node]) -> list[list[Node]]:
    """The nodes in columns, each node to the right of all that it depends on; arrows that others imply are removed."""
    order = TopologicalSorter(
        {node.name: {other.name for other in graph if node.name in other.after} for node in graph}
    )
    order.prepare()
    generations: list[tuple[str, ...]] = []
    while order.is_active():
        generations.append(order.get_ready())
        order.done(*generations[-1])
    nodes = {node.name: node for node in graph}
    reached: dict[str, set[str]] = {}
    for name in [name for generation in reversed(generations) for name in generation]:
        after = nodes[name].after
        reached[name] = {*after, *(far for near in after for far in reached[near])}
        direct = [far for far in after if not any(far in reached[near] for near in after)]
        nodes[name] = nodes[name]._replace(after=direct)
    return [[node for name, node in nodes.items() if name in generation] for generation in generations]


def _name(name: str, stage: Mapping[str, Any]) -> str:
    if "foreach" not in stage:
        return name
    return f"{name}@{'RUN' if stage['foreach'] == '${runs}' else 'NAME'}"


def _path(entry: str | Mapping[str, Any]) -> str:
    return entry if isinstance(entry, str) else next(iter(entry))


def _overlap(out: str, dep: str) -> bool:
    """Whether the two paths are equal or one lies within the other; `${key}` is compared as text."""
    return out == dep or dep.startswith(f"{out}/") or out.startswith(f"{dep}/")
