"""The README's generated parts: the picture of the graph, from dvc.yaml, and the table of results.

Run as `python -m mtbert.report.readme` in the project's root to renew them, with `--check` to see whether they are current.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from mtbert.errors import MtbertError
from mtbert.files import atomic_write_text

RESULTS = Path("reports/course/tables/table1.md")  # made by `make reproduce PROFILE=course DATA=...`


def update_block(text: str, name: str, content: str) -> str:
    """Put `content` between the lines `<!-- begin NAME -->` and `<!-- end NAME -->` of `text`.

    Raises:
        MtbertError: the two lines are not there, once each and in this order.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise MtbertError(f"README.md: needs one line `{begin}` and after it one line `{end}`")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content.strip()}\n{end}{rest.split(end)[1]}"


def graph_picture(path: Path) -> str:
    """A Mermaid flowchart of dvc.yaml: a node per stage, the items of a foreach drawn as one.

    Only data flow is drawn: `plan`, on which every stage depends, is left out.
    """
    stages: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))["stages"]
    nodes: dict[str, tuple[list[str], list[str]]] = {}
    for name, stage in stages.items():
        if name == "plan":
            continue
        parts = stage.get("do", stage)
        outs = [_path(entry) for part in ("outs", "metrics", "plots") for entry in parts.get(part, [])]
        nodes[_node(name, stage)] = [_path(entry) for entry in parts.get("deps", [])], outs
    labels = [f'  {_id(node)}["{node}"]' for node in nodes if _id(node) != node]
    edges = []
    for source, (_, outs) in nodes.items():
        targets = [
            _id(target)
            for target, (deps, _) in nodes.items()
            if source != target and any(_overlap(out, dep) for out in outs for dep in deps)
        ]
        edges += [f"  {_id(source)} --> {' & '.join(targets)}"] if targets else []
    return "\n".join(["```mermaid", "flowchart LR", *labels, *edges, "```"])


def main() -> None:
    """Renew the README's generated parts, or check that they are current."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit status 1 if something is out of date"
    )
    check = parser.parse_args().check
    readme = Path("README.md")
    try:
        text = readme.read_text(encoding="utf-8")
        fresh = update_block(text, "graph", graph_picture(Path("dvc.yaml")))
        if RESULTS.exists():  # until that profile has been run, the README keeps what it has
            fresh = update_block(fresh, "results", RESULTS.read_text(encoding="utf-8"))
    except MtbertError as error:
        sys.exit(f"error: {error}")
    if fresh != text and check:
        sys.exit("README.md is out of date: run `python -m mtbert.report.readme`")
    if fresh != text:
        atomic_write_text(readme, fresh)


def _node(name: str, stage: Mapping[str, Any]) -> str:
    """train@RUN, table@NAME, report: what a stage repeats itself over stands behind the @."""
    if "foreach" not in stage:
        return name
    return f"{name}@{'RUN' if stage['foreach'] == '${runs}' else 'NAME'}"


def _path(entry: str | Mapping[str, Any]) -> str:
    return entry if isinstance(entry, str) else next(iter(entry))


def _overlap(out: str, dep: str) -> bool:
    """Whether a dep is an out, lies in it, or is the folder that it lies in; `${key}` stands for itself."""
    return out == dep or dep.startswith(f"{out}/") or out.startswith(f"{dep}/")


def _id(node: str) -> str:
    return re.sub(r"\W", "_", node)


if __name__ == "__main__":
    main()
