"""Write the docs' tables and a figure from reports/benchmarks/*.json: `python -m benchmarks.table [--check]`.

The tables stand between their markers.
"""

import json
from pathlib import Path
from typing import Any

import typer

from benchmarks import costs
from benchmarks.harness import RESULTS
from mtbert.report.readme import update_block

PERFORMANCE = Path("docs/performance.md")
ADAPTERS = Path("docs/adapters.md")


def main(check: bool = False) -> None:
    """Write the tables into the docs, or with --check fail if one there is not current."""
    for page, block, content in (PERFORMANCE, "benchmarks", table()), (ADAPTERS, "methods", costs.table()):
        old = page.read_text(encoding="utf-8")
        new = update_block(old, block, content)
        if check and new != old:
            raise SystemExit(f"error: {page}: the table is out of date; run `python -m benchmarks.table`")
        page.write_text(new, encoding="utf-8")
    if not check:
        costs.draw_figure()


def table(folder: Path = RESULTS) -> str:
    """A Markdown table with a row for each target of every result."""
    results = sorted(folder.glob("*.json"))
    if not results:
        return "No benchmark has been published yet."
    lines = [
        "| benchmark | figure | measured | target | met | machine, date |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]
    for path in results:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        where = result["where"]
        machine = f"{where['gpu'] or where['machine']} ({where['instructions']}), {where['date']}"
        for target in result["targets"]:
            bound = f"{'≤' if target['at_most'] else '≥'} {target['bound']:g}"
            met, what = "yes" if target["met"] else "no", target["what"].replace("|", "\\|")
            lines.append(f"| `{result['command']}` | {what} | {target['value']:.3g} | {bound} | {met} | {machine} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
