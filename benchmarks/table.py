"""Write the tables of benchmarks in the docs, between their markers, from reports/benchmarks/*.json: `python -m benchmarks.table [--check]`."""

import json
from pathlib import Path
from typing import Any

import typer

from benchmarks.harness import RESULTS
from mtbert.report.readme import update_block

PERFORMANCE = Path("docs/performance.md")
ADAPTERS = Path("docs/adapters.md")


def main(check: bool = False) -> None:
    """Write the tables into the docs, or with --check fail if one there is not current."""
    for page, block, content in (PERFORMANCE, "benchmarks", table()), (ADAPTERS, "methods", methods()):
        old = page.read_text(encoding="utf-8")
        new = update_block(old, block, content)
        if check and new != old:
            raise SystemExit(f"error: {page}: the table is out of date; run `python -m benchmarks.table`")
        page.write_text(new, encoding="utf-8")


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


def methods(folder: Path = RESULTS) -> str:
    """A Markdown table with a row for each adapter method that `benchmarks.methods` measured, fastest first."""
    path = folder / "methods.json"
    if not path.exists():
        return "Not measured yet."
    result = json.loads(path.read_text(encoding="utf-8"))
    full = result["methods"][result["ours"]]
    lines = ["| Method | Trained of the encoder | Time of a step | Peak memory |", "| --- | ---: | ---: | ---: |"]
    for row in sorted(result["methods"].values(), key=lambda row: row["time"]):
        memory = f"{row['peak_bytes'] / full['peak_bytes']:.2f}"
        lines.append(f"| {row['title']} | {row['trained']:,} | {row['time']:.2f} | {memory} |")
    where = result["where"]
    lines += [
        "",
        f"Times and peaks are over those of full fine-tuning, {full['peak_bytes'] / 1e6:,.0f} MB: `{result['command']}` on "
        f"{where['gpu'] or where['machine']}, {result['precision']}, {where['date']}; medians of "
        f"{len(result['cases'][result['ours']]['rounds'])} alternating rounds.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
