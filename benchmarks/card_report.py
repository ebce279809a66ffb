"""The page reports/benchmarks/gpu.md: what each part of `benchmarks.gpu` measured, by which code, and how much of it is there."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtbert.params import load_params

PAGE = "gpu.md"
UNKNOWN = "not under git"  # the code of a result, where no commit is known
# What `benchmarks.card_graphs` measures, one key for each of its three measurements.
MEASUREMENTS = ("eager", "largest_difference_of_losses", "largest_difference_of_two_replayed_runs")

INTRODUCTION = (
    "`benchmarks.gpu` writes this page after every round, and `python -m benchmarks.table` from the files gpu-*.json beside it. Where the "
    "code of a part is not a commit, [Performance](../../docs/performance.md#on-a-gpu) says what is known of it."
)


def markdown(folder: Path) -> str:
    """The results of all parts in a folder as Markdown."""
    parts = [
        _part(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("gpu-*.json"))
    ]
    return "\n\n".join(["# GPU benchmarks", INTRODUCTION, *parts]) + "\n"


def _part(name: str, result: Mapping[str, Any]) -> str:
    where = result["where"]
    code = where.get("code", UNKNOWN)
    about = [f"`{result['command']}`", where["gpu"] or where["machine"], where["date"]]
    lines = [f"## {name}", "", f"{', '.join(about)}, {'code ' * (code == UNKNOWN)}{code}.", ""]
    facts = " ".join([*_batch(result), *_amount(result)])
    lines += [facts, ""] if facts else []
    if "cases" in result:
        lines += _cases(result)
    if "eager" in result:
        lines += _graphs(result)
    if "runs" in result:
        lines += _runs(result)
    for target in result["targets"]:
        bound = f"{'at most' if target['at_most'] else 'at least'} {target['bound']:g}"
        lines.append(f"- {target['what']}: {target['value']:.3g} ({bound}: {'met' if target['met'] else 'not met'})")
    for case, why in result.get("failed", {}).items():
        lines.append(f"- {case}: not measured: {why}")
    return "\n".join(lines).rstrip()


def _batch(result: Mapping[str, Any]) -> list[str]:
    """The size of the batches; the part of graphs has always had batches of 8, which its older files do not say."""
    if "batch_size" in result:
        sizes = {result["batch_size"]}
    elif "eager" in result:
        sizes = {8}
    else:
        sizes = {run["batch_size"] for run in result.get("runs", {}).values()}
    return [f"Batches of {' and '.join(map(str, sorted(sizes)))}."] if sizes else []


def _amount(result: Mapping[str, Any]) -> list[str]:
    """How much of what was wanted there is."""
    if "rounds" in result:
        return [f"{result['rounds']} of {result['rounds_wanted']} rounds."]
    if "runs" in result:
        wanted = result.get("runs_wanted") or len(load_params(profile="paper").runs)
        return [f"{len(result['runs'])} of {wanted} runs."]
    if "eager" in result:
        return [f"{sum(key in result for key in MEASUREMENTS)} of {len(MEASUREMENTS)} measurements."]
    return [] if result.get("complete", True) else ["Not complete."]


def _cases(result: Mapping[str, Any]) -> list[str]:
    times = result.get("milliseconds_per_step", {})
    lines = [f"| case | {result['unit']} | {'ms a step | ' if times else ''}{result['ours']} is |"]
    lines += [f"| --- | ---: | ---: |{' ---: |' if times else ''}"]
    for case, row in result["cases"].items():
        time = f"{times[case]:.2f} | " if times else ""
        lines.append(f"| {case} | {row['median']:,.0f} | {time}{row[result['ours'] + ' is']:.2f} times as fast |")
    return [*lines, ""]


def _graphs(result: Mapping[str, Any]) -> list[str]:
    lines = [
        "| steps | ms a step | of these, until the host has launched all | launches |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, key in (("kernel by kernel", "eager"), ("replayed", "replayed")):
        if key in result:
            row, launches = result[key], result[key]["launches"]
            count = "–" if launches is None else f"{launches:,}"
            lines.append(f"| {name} | {1000 * row['seconds']:.2f} | {1000 * row['host_seconds']:.2f} | {count} |")
    lines += ["", f"- filler rows: {result['filler']:.1%}"]
    if "recorded" in result:
        lines.append(f"- graphs recorded: {result['recorded']}, {result['seconds_per_recording']:.2f} s each")
        lines.append(f"- waits for the device during replayed steps: {result['waits'] or 'none'}")
    for key in MEASUREMENTS[1:]:
        if key in result:
            lines.append(f"- {key.replace('_', ' ')}: {result[key]:.3g}")
    return lines


def _runs(result: Mapping[str, Any]) -> list[str]:
    sizes = ", ".join(f"{rows:,} of {task}" for task, rows in result["sizes"].items())
    lines = [f"For {result['epochs']} epochs on {sizes}: {result['extrapolated']}.", ""]
    lines += ["| run | steps | minutes |", "| --- | ---: | ---: |"]
    for run, row in result["runs"].items():
        lines.append(f"| {run} | {sum(row['steps'].values()):,} | {row['minutes']:.2f} |")
    steps = sum(sum(row["steps"].values()) for row in result["runs"].values())
    return [*lines, f"| all of these | {steps:,} | {result['minutes']:.1f} |", ""]
