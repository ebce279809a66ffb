"""The README's generated parts: the diagram of dvc.yaml and the table of results.

`python -m mtbert.report.readme`, run in the project's root, updates them; with `--check` it only says whether they are current.
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
        MtbertError: the two lines do not occur exactly once each, in this order.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise MtbertError(f"README.md: needs one line `{begin}` and after it one line `{end}`")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content.strip()}\n{end}{rest.split(end)[1]}"


def graph_picture(path: Path) -> str:
    """A Mermaid flowchart of dvc.yaml with one node per stage, a foreach stage included.

    `plan` is left out, since every stage depends on it.
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
    sources: dict[str, list[str]] = {}  # by what they lead to
    for source, (_, outs) in nodes.items():
        targets = " & ".join(
            _id(target)
            for target, (deps, _) in nodes.items()
            if source != target and any(_overlap(out, dep) for out in outs for dep in deps)
        )
        sources.setdefault(targets, []).append(_id(source))
    edges = [f"  {' & '.join(names)} --> {targets}" for targets, names in sources.items() if targets]
    return "\n".join(["```mermaid", "flowchart LR", *labels, *edges, "```"])


def main() -> None:
    """Update the README's generated parts, or check that they are up to date."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit status 1 if something is out of date"
    )
    check = parser.parse_args().check
    readme = Path("README.md")
    try:
        text = readme.read_text(encoding="utf-8")
        fresh = update_block(text, "graph", graph_picture(Path("dvc.yaml")))
        if RESULTS.exists():  # else keep the README's table
            fresh = update_block(fresh, "results", RESULTS.read_text(encoding="utf-8"))
    except MtbertError as error:
        sys.exit(f"error: {error}")
    if fresh != text and check:
        sys.exit("README.md is out of date: run `python -m mtbert.report.readme`")
    if fresh != text:
        atomic_write_text(readme, fresh)


def _node(name: str, stage: Mapping[str, Any]) -> str:
    """The name of a stage's node, such as train@RUN, table@NAME or report."""
    if "foreach" not in stage:
        return name
    return f"{name}@{'RUN' if stage['foreach'] == '${runs}' else 'NAME'}"


def _path(entry: str | Mapping[str, Any]) -> str:
    return entry if isinstance(entry, str) else next(iter(entry))


def _overlap(out: str, dep: str) -> bool:
    """Whether the two paths are equal or one lies within the other; `${key}` is compared as text."""
    return out == dep or dep.startswith(f"{out}/") or out.startswith(f"{dep}/")


def _id(node: str) -> str:
    return re.sub(r"\W", "_", node)


if __name__ == "__main__":
    main()
