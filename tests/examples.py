"""The commands of docs/experiments.md, docs/compare.md, docs/errors.md and docs/share.md, run in tiny projects, and their output beside what the pages say.

Run as `python -m tests.examples` in the project's root: exit status 1 if a page is out of date; `--write` renews them.

A block ```console is run, line by line, and shows the output; of a block ```sh the output is left out. A block ```yaml is added to
params.yaml. Other blocks are not run.
"""

import re
import sys
import tempfile
from pathlib import Path

from tests.project import add_settings, best_run, commit, course_files, few_runs, must, tiny_project

BLOCK = re.compile(r"^```(console|sh|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What differs from one run, machine or version to the next, each with what stands for it when two pages are compared.
CHANGING = [
    (r"(\$ mtbert errors[^\n]*\n)[^`]*", r"\1"),  # which sentences there are depends on the scores
    (r"(?m)^( |metrics/).*\n", ""),  # scores, and which of them changed
    (r"(?m)^(baseline|best_performance|Right) .*\n", ""),  # examples that one run alone gets right
    (r"(?m)^(Training|Peak memory), .*", "SPEED"),
    (r"\bon \d+\b", "on COUNT"),
    (r"\(\d+%\)", "SHARE"),
    (r"Worker status: .*", "WORKERS"),
    (r"\b[0-9a-f]{7,32}(\.dir)?\b", "HASH"),
    (r"\b\d\d:\d\d [AP]M\b", "TIME"),
    (r"(< )?[-+]?\d+\.\d+(e-?\d+)?\b", "NUMBER"),
    (r"\b\d+ files", "FILES"),
    (r"[─ \t]+", " "),
]
# A tiny run may predict one value for all; whether it does depends on the machine.
CONSTANT = "warning: Pearson's r is undefined"
LARGER = {
    "data__sample__sizes": {task: {"train": 64, "dev": 64, "test": 16} for task in ("sst", "quora", "sts")},
    "profiles__sample__budget__epoch_end": 10,
    "profiles__sample__budget__learning_rate": 1e-3,
}


def project(folder: Path) -> Path:
    """Four runs on generated data, trained and committed; in `course-files` the files of a user."""
    few_runs(tiny_project(folder, **LARGER))
    course_files(folder / "course-files")
    with (folder / ".gitignore").open("a", encoding="utf-8") as file:
        file.write("/course-files\n")
    commit(folder, "start")
    return folder


def analysed(folder: Path) -> Path:
    """One run with enough dev examples for slices."""
    best_run(tiny_project(folder, **LARGER))
    commit(folder, "start")
    return folder


def shared(folder: Path) -> Path:
    """One run, trained."""
    best_run(tiny_project(folder))
    commit(folder, "start")
    must(folder, "dvc", "repro")
    return folder


PAGES = {
    Path("docs/experiments.md"): project,
    Path("docs/compare.md"): project,
    Path("docs/errors.md"): analysed,
    Path("docs/share.md"): shared,
}


def renewed(text: str, folder: Path) -> str:
    """The page with the output that its commands have now, in the project of this folder."""

    def run(block: re.Match[str]) -> str:
        kind, body = block.groups()
        if kind == "yaml":
            add_settings(folder, body)
            return block[0]
        lines = [line for line in body.splitlines() if line.startswith("$ ") or kind == "sh"]
        shown = []
        for line in lines:
            command = f"set -o pipefail; {line.removeprefix('$ ')}"
            output = must(folder, "bash", "-c", command, COLUMNS="100").replace(str(folder), "…")
            shown.append(line)
            if kind == "console":
                shown += [
                    part.rstrip() for part in output.splitlines() if part.strip() and not part.startswith(CONSTANT)
                ]
        return "\n".join([f"```{kind}", *shown, "```"])

    return BLOCK.sub(run, text)


def compared(text: str) -> str:
    """The page without what may differ."""
    for pattern, name in CHANGING:
        text = re.sub(pattern, name, text)
    # DVC's order of stages that do not depend on each other changes.
    return re.sub(
        r"(?m)(^Running stage .*\n)+", lambda lines: "".join(sorted(lines[0].splitlines(keepends=True))), text
    )


def main() -> None:
    """Run the pages' commands; write the pages, or say whether they are current."""
    outdated = []
    for page, make in PAGES.items():
        text = page.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            fresh = renewed(text, make(Path(folder) / "mtbert"))
        if "--write" in sys.argv:
            page.write_text(fresh, encoding="utf-8")
        elif compared(fresh) != compared(text):
            outdated.append(str(page))
    if outdated:
        sys.exit(f"{', '.join(outdated)}: out of date; run `python -m tests.examples --write`")


if __name__ == "__main__":
    main()
