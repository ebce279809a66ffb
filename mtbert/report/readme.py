"""The README's generated parts: the diagram of dvc.yaml and the table of results.

`python -m mtbert.report.readme`, run in the project's root, updates them; with `--check` it only says whether they are current.
"""

import argparse
import re
import sys
from pathlib import Path

from mtbert.errors import MtbertError
from mtbert.files import atomic_write_text
from mtbert.report.graph import read_graph

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
    """A Mermaid flowchart of dvc.yaml."""
    graph = read_graph(path)
    labels = [f'  {_id(node.name)}["{node.name}"]' for node in graph if _id(node.name) != node.name]
    sources: dict[str, list[str]] = {}  # by what they lead to
    for node in graph:
        sources.setdefault(" & ".join(map(_id, node.after)), []).append(_id(node.name))
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
            title_and_rows = RESULTS.read_text(encoding="utf-8").split("\n\n")[:2]  # without the notes below the table
            fresh = update_block(fresh, "results", "\n\n".join(title_and_rows))
    except MtbertError as error:
        sys.exit(f"error: {error}")
    if fresh != text and check:
        sys.exit("README.md is out of date: run `python -m mtbert.report.readme`")
    if fresh != text:
        atomic_write_text(readme, fresh)


def _id(node: str) -> str:
    return re.sub(r"\W", "_", node)


if __name__ == "__main__":
    main()
