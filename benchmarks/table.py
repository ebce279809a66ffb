"""Write the docs' tables, gpu.md and a figure from reports/benchmarks/*.json: `python -m benchmarks.table [--check]`.

The tables stand between their markers. --check looks at all but the figure, whose outlines depend on matplotlib's version.
"""

import json
from pathlib import Path
from typing import Any

import typer

from benchmarks import costs
from benchmarks.card_report import PAGE, markdown
from benchmarks.harness import RESULTS
from mtbert.files import atomic_write_text
from mtbert.report.readme import update_block

PERFORMANCE = Path("docs/performance.md")
ADAPTERS = Path("docs/adapters.md")


def main(check: bool = False) -> None:
    """Write the tables and the page of the GPU, or with --check fail if one is not current."""
    for path, fresh in current().items():
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if check and fresh != old:
            raise SystemExit(f"error: {path}: out of date; run `python -m benchmarks.table`")
        if fresh != old:
            atomic_write_text(path, fresh)
    if not check:
        costs.draw_figure()


def current() -> dict[Path, str]:
    """What the files that have generated parts should hold."""
    blocks = {PERFORMANCE: ("benchmarks", table()), ADAPTERS: ("methods", costs.table())}
    pages = {page: update_block(page.read_text(encoding="utf-8"), *block) for page, block in blocks.items()}
    return pages | {RESULTS / PAGE: markdown(RESULTS)}


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
        # A GPU that is there is named in every result, but only `benchmarks.gpu` has targets for it.
        device = (path.name.startswith("gpu-") and where["gpu"]) or where["machine"]
        machine = f"{device} ({where['instructions']}), {where['date']}"
        fp32 = ", in fp32" * (result.get("precision") == "fp32")
        for target in result["targets"]:
            bound = f"{'≤' if target['at_most'] else '≥'} {target['bound']:g}"
            met, what = "yes" if target["met"] else "no", target["what"].replace("|", "\\|") + fp32
            lines.append(f"| `{result['command']}` | {what} | {target['value']:.3g} | {bound} | {met} | {machine} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
