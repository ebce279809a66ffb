"""Allowed imports, and that each stage in dvc.yaml depends on its own plan and reads no other settings.

All by reading the sources (ast), importing none. Each check is a function of a project's root that lists what is wrong:
the last tests plant each mistake in a small made-up project and see it found.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from mtbert.pipeline.code import PACKAGES, closure, code_of_stages, imports, modules
from mtbert.pipeline.plans import PLAN

ROOT = Path(__file__).parent.parent
# Of the package's parts, each may import those named here and itself. `layer` goes from left to right: "may be imported by".
LAYERS = ("tasks", "sample", "corpus", "data", "model", "pretrained", "peft", "evaluation", "training", "fast")
FILES = {"errors", "files", "seal", "section", "tabular"}
MAY_IMPORT: dict[str, set[str]] = {
    "": set(),  # mtbert itself
    "errors": set(),
    "files": {"errors"},
    "seal": {"errors", "files"},
    "tabular": {"errors", "files"},
    "section": set(),
    **{layer: FILES | set(LAYERS[:place]) for place, layer in enumerate(LAYERS)},
    "report": FILES | {"tasks", "data", "evaluation"},  # reads results, computes none
    "yamlfile": {"errors"},
    "resolve": {"errors"},
    "settings": {"errors", "section", "tasks", "model", "peft", "training"},
    "params_errors": {"errors", "resolve"},
    "params": {"errors", "yamlfile", "resolve", "section", "settings", "tasks", "params_errors"},
    "engines": {"model", "training", "fast"},  # the door: nothing else imports fast, which can be deleted
    "completion": {"errors", "yamlfile", "pipeline"},
    "housekeeping": {"errors", "files", "training"},
    "doctor": {"errors", "housekeeping", "engines", "training", "params", "tasks", "corpus", "pretrained", "peft"},
    # What the stages share; of it, only the plan and the cost estimate read params.yaml.
    "pipeline": FILES | {*LAYERS[:-1], "engines", "params", "settings"},
    # A trained model's use: all of it but params.yaml.
    "inference": FILES | {*LAYERS[:-1], "engines", "settings", "pipeline"},
    # A trained model in other libraries' formats.
    "export": FILES | {*LAYERS[:-1], "pipeline", "inference"},
    "compare": {"errors", "training", "report", "pipeline"},
    "error_analysis": {"errors", "tasks", "report", "pipeline"},
    # DVC's graph for another engine.
    "workflow": FILES | {"params", "settings", "pipeline"},
    # The way to another machine and back.
    "bundle": FILES | {"params", "settings", "pretrained", "training", "pipeline", "workflow"},
    "cli": {
        "errors",
        "params",
        "completion",
        "housekeeping",
        "doctor",
        "compare",
        "error_analysis",
        "pipeline",
        "inference",
        "export",
        "workflow",
        "bundle",
    },
    "__main__": {"cli"},
}
# The one part that may import each of these.
ONLY = {"typer": "cli", "stages": "cli", "dvc": "workflow"}
# Sections of params.yaml that are for an engine: an edit of them re-runs no stage.
NO_STAGE_READS = {"workflow"}
# What may read params.yaml: `plan` resolves it for all other stages, and the cost estimate runs before there is a plan.
READS_PARAMS = {
    "stages.plan",
    "stages.study",
    *(f"mtbert.pipeline.{name}" for name in ("planning", "cost", "sizes", "estimate")),
}
IN_STUDIES = {"study", "provenance"}  # stages of studies/study.yaml alone; tests/test_studies.py checks that graph
DOOR = "mtbert.engines"


def wrong_directions(root: Path) -> list[str]:
    graph = imports(modules(root))
    found = []
    for name, targets in graph.items():
        part = _part(name)
        if name.startswith("mtbert") and part not in MAY_IMPORT:
            found.append(f"{name}: {part} is not in MAY_IMPORT")
            continue
        for target in sorted(targets):
            if name.startswith(("stages", "mtbert.pipeline")) and target.startswith("mtbert.params"):
                if name not in READS_PARAMS:
                    found.append(f"{name} imports {target}: a stage reads its plan, not params.yaml")
            elif name.startswith("stages"):
                continue
            elif part != (only := ONLY.get(target.split(".")[0], part)):
                found.append(f"{name} imports {target}: only mtbert.{only} may")
            elif target in graph and target.startswith("mtbert.") and _part(target) not in {part, *MAY_IMPORT[part]}:
                allowed = ", ".join(sorted(MAY_IMPORT[part])) or "nothing"
                found.append(f"{name} imports {target}: {part} may import {allowed}")
    for name in graph:
        if name.startswith("mtbert.report"):
            for via in sorted(closure(name, graph)):
                if any(target.split(".")[0] == "torch" for target in graph[via]):
                    found.append(f"{name} loads torch through {via}")
    return found


def beside_the_door(root: Path) -> list[str]:
    """Imports of mtbert/fast outside of it and mtbert/engines.py; there must be none, so that the folder can be deleted."""

    def inside(name: str) -> bool:
        return f"{name}.".startswith("mtbert.fast.")

    graph = imports(modules(root))
    return [
        f"{name} imports {target}: only {DOOR} may"
        for name in graph.keys() - {DOOR}
        if not inside(name)
        for target in sorted(filter(inside, graph[name]))
    ]


def _part(name: str) -> str:
    """The second part of a module's name: `model` of mtbert.model.bert."""
    return name.split(".")[1] if "." in name else ""


def settings_read(root: Path) -> list[str]:
    """Places that name params.yaml as a file, outside of the modules that look for it."""
    found = []
    for name, path in modules(root).items():
        if name not in ("mtbert.params", "mtbert.cli", "mtbert.completion"):
            found += [
                f"{path.relative_to(root).as_posix()}:{node.lineno}: names params.yaml as a file"
                for node in ast.walk(ast.parse(path.read_bytes()))
                if isinstance(node, ast.Constant) and node.value == "params.yaml"
            ]
    return found


def uncovered(root: Path) -> list[str]:
    """Stages that an edit of their own settings or code would not re-run, or an edit of another stage's would, as "stage: fault".

    `plan` alone reads params.yaml and the packages; every other stage, expanded, depends on its own file of the plan.
    """
    found, expanded = [], set()
    known, listed, params = modules(root), code_of_stages(root), _yaml(root / "params.yaml")
    for stage, name, key, block in _expanded(_yaml(root / "dvc.yaml")["stages"], params):
        command = block["cmd"]
        match = re.fullmatch(r"python -m stages\.(\w+)((?: \S+)*)", command) if isinstance(command, str) else None
        if match is None or f"stages.{match[1]}" not in known:
            found.append(f"{name}: cmd {command!r} is not `python -m stages.NAME` of a module that exists")
            continue
        if match[1] not in listed:
            found.append(f"{name}: stages.{match[1]} does not import mtbert.pipeline.start, so it is not listed")
            continue
        if match[1] != stage or match[2].split() != ([key] if key else []):
            found.append(f"{name}: cmd {command!r} is not its own")
        expanded.add(stage)
        own = f"{stage}/{key}" if key else stage
        wanted = set(PACKAGES) if stage == "plan" else {f"{PLAN.as_posix()}/{own}.json"}
        deps = {
            dep for dep in _paths(block, "deps") if dep.split("/")[0] in PACKAGES or dep.startswith(PLAN.as_posix())
        }
        found += [f"{name}: {dep} is not among its deps" for dep in sorted(wanted - deps)]
        found += [f"{name}: {dep} is not its own" for dep in sorted(deps - wanted)]
        sections = set(params) - NO_STAGE_READS if stage == "plan" else set()
        read = {entry if isinstance(entry, str) else str(entry) for entry in block.get("params", [])}
        found += [f"{name}: {section} is not among its params" for section in sorted(sections - read)]
        found += [f"{name}: {section} is read from params.yaml" for section in sorted(read - sections)]
        if stage == "plan" and PLAN.as_posix() not in _paths(block, "outs"):
            found.append(f"plan: {PLAN.as_posix()} is not among its outs")
    return found + [f"{stage}: not in dvc.yaml" for stage in sorted(listed.keys() - expanded - IN_STUDIES)]


def _yaml(path: Path) -> dict[str, Any]:
    tree: dict[str, Any] = YAML(typ="safe").load(path)
    return tree


def _expanded(stages: dict[str, Any], params: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """(stage, its name in DVC, key, block) of every stage, as DVC expands `foreach: ${runs}`."""
    for stage, entry in stages.items():
        if "foreach" not in entry:
            yield stage, stage, "", entry
            continue
        section = entry["foreach"].removeprefix("${").removesuffix("}")
        for key in params[section]:
            yield stage, f"{stage}@{key}", key, json.loads(json.dumps(entry["do"]).replace("${key}", key))


def _paths(block: dict[str, Any], key: str) -> list[str]:
    return [(entry if isinstance(entry, str) else next(iter(entry))).rstrip("/") for entry in block.get(key, [])]


@pytest.mark.parametrize("check", [wrong_directions, beside_the_door, settings_read, uncovered])
def test_the_project_is_good(check: Callable[[Path], list[str]]) -> None:
    assert not (found := check(ROOT)), "\n" + "\n".join(found)


def test_no_data_are_run_as_code_in_ways_that_ruff_does_not_see() -> None:
    unsafe = re.compile(r"""allow_pickle\s*=\s*True|typ=["']unsafe""")
    for folder in (*PACKAGES, "benchmarks", "tools", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not unsafe.search(path.read_text(encoding="utf-8")), path


def test_what_the_page_is_made_of_is_code_of_its_stage() -> None:
    listed = code_of_stages(ROOT)["report"]
    parts = [
        path for path in (ROOT / "mtbert/report").iterdir() if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert parts and {path.relative_to(ROOT).as_posix() for path in parts} <= set(listed)


GOOD = {
    "mtbert/__init__.py": "",
    "mtbert/params.py": "PARAMS_FILE = 'params.yaml'",
    "mtbert/errors.py": "class MtbertError(Exception): ...",
    "mtbert/data/__init__.py": "",
    "mtbert/data/tasks.py": "from mtbert.errors import MtbertError",
    "mtbert/model/__init__.py": "",
    "mtbert/model/bert.py": "import torch\n\ndef build():\n    from ..data import tasks\n    return tasks",
    "mtbert/fast/__init__.py": "from mtbert.fast import cpu\nfrom mtbert.model import bert",
    "mtbert/fast/cpu.py": "",
    "mtbert/engines.py": "def door():\n    from mtbert import fast\n    return fast",
    "mtbert/report/__init__.py": "",
    "mtbert/report/page.py": "from mtbert.data import tasks\nTEMPLATE = 'page.j2'",
    "mtbert/report/page.j2": "<html>",
    "stages/__init__.py": "",
    "mtbert/pipeline/__init__.py": "",
    "mtbert/pipeline/start.py": "def start(main): main()",
    "stages/shared.py": "",
    "stages/plan.py": "from mtbert.params import load_params\nfrom mtbert.pipeline.start import start\nstart(load_params)",
    "stages/train.py": "from mtbert.model.bert import build\nfrom mtbert.pipeline.start import start\nstart(build().eval)",
    "stages/report.py": "import mtbert.report.page\nfrom mtbert.pipeline.start import start\nstart(print)",
    "params.yaml": "{profile: sample, runs: {a: {}, b: {}}}",
    "dvc.yaml": """
stages:
  plan:
    cmd: python -m stages.plan
    params: [profile, runs]
    deps: [mtbert, stages]
    outs: [build/plan]
  train:
    foreach: ${runs}
    do:
      cmd: python -m stages.train ${key}
      deps: [data/raw, "build/plan/train/${key}.json"]
  report:
    cmd: python -m stages.report
    deps: [build/plan/report.json]
""",
}


def made(root: Path, **changes: str) -> Path:
    """The good project with some files replaced (`data__tasks` is mtbert/data/tasks.py)."""
    for name, text in GOOD.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    for name, text in changes.items():
        path = root / "mtbert" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_the_made_up_project_is_good(tmp_path: Path) -> None:
    root = made(tmp_path)
    checks = (wrong_directions, beside_the_door, settings_read, uncovered)
    assert [found for check in checks for found in check(root)] == []


@pytest.mark.parametrize(
    ("module", "code", "message"),
    [
        ("data__tasks", "from mtbert.model import bert", "mtbert.data.tasks imports mtbert.model"),
        ("errors", "import mtbert.data.tasks", "mtbert.errors imports mtbert.data.tasks"),
        ("model__bert", "import typer", "mtbert.model.bert imports typer"),
        ("model__bert", "from dvc.api import open", "mtbert.model.bert imports dvc.api"),
        ("model__bert", "import stages.train", "mtbert.model.bert imports stages.train"),
        (
            "model__bert",
            "from mtbert.report import page",
            "mtbert.model.bert imports mtbert.report.page: model may import",
        ),
        ("report__page", "import mtbert.model.bert", "mtbert.report.page imports mtbert.model.bert: report may import"),
        (
            "settings",
            "import mtbert.data.tasks",
            "mtbert.settings imports mtbert.data.tasks: settings may import errors, model",
        ),
        ("data__tasks", "import mtbert.params", "mtbert.data.tasks imports mtbert.params: data may import"),
        ("tabular", "from mtbert.data import tasks", "mtbert.tabular imports mtbert.data.tasks: tabular may import"),
        ("model__bert", "from mtbert.fast import cpu", "mtbert.model.bert imports mtbert.fast: model may import"),
        ("fast__cpu", "import mtbert.engines", "mtbert.fast.cpu imports mtbert.engines: fast may import"),
        ("strange", "", "mtbert.strange: strange is not in MAY_IMPORT"),
        ("report__page", "import torch", "mtbert.report.page loads torch through mtbert.report.page"),
        ("data__tasks", "import torch.nn", "mtbert.report.page loads torch through mtbert.data.tasks"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, module: str, code: str, message: str) -> None:
    assert message in "\n".join(wrong_directions(made(tmp_path, **{module: code})))


@pytest.mark.parametrize("file", ["stages/train.py", "mtbert/model/bert.py", "mtbert/cli.py"])
def test_another_door_is_found(tmp_path: Path, file: str) -> None:
    root = made(tmp_path)
    (root / file).write_text("def f():\n    from mtbert import fast", encoding="utf-8")
    assert "imports mtbert.fast" in "\n".join(beside_the_door(root))


def test_a_stage_that_reads_the_settings_itself_is_found(tmp_path: Path) -> None:
    root = made(tmp_path)
    path = root / "stages/train.py"
    sound = path.read_text(encoding="utf-8")
    path.write_text(f"from mtbert.params import load_params\n{sound}", encoding="utf-8")
    assert "stages.train imports mtbert.params: a stage reads its plan" in "\n".join(wrong_directions(root))
    path.write_text(f"{sound}\nopen('params.yaml')", encoding="utf-8")
    (found,) = settings_read(root)
    assert found.startswith("stages/train.py:4: ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (', "build/plan/train/${key}.json"', "", "train@a: build/plan/train/a.json is not among its deps"),
        ("plan/train/${key}.json", "plan/train/a.json", "train@b: build/plan/train/b.json is not among its deps"),
        (
            'train/${key}.json"]',
            'train/${key}.json", build/plan/report.json]',
            "train@a: build/plan/report.json is not its own",
        ),
        ('train/${key}.json"]', 'train/${key}.json", build/plan]', "train@b: build/plan is not its own"),
        ("report.json]", "report.json, mtbert/report]", "report: mtbert/report is not its own"),
        ("report.json]", "report.json]\n    params: [profile]", "report: profile is read from params.yaml"),
        ("report.json]", "report.json]\n    params: [other.yaml: [a]]", "report: {'other.yaml': ['a']} is read from"),
        ("python -m stages.report", "python -m stages.train", "report: cmd 'python -m stages.train' is not its own"),
        ("stages.train ${key}", "stages.train a", "train@b: cmd 'python -m stages.train a' is not its own"),
        ("python -m stages.report", "python -m stages.page", "report: cmd 'python -m stages.page' is not"),
        ("python -m stages.report", "mtbert report && true", "report: cmd 'mtbert report && true' is not"),
        ("python -m stages.report", "python -m stages.shared", "report: stages.shared does not import"),
        (
            "  report:\n    cmd: python -m stages.report\n    deps: [build/plan/report.json]\n",
            "",
            "report: not in dvc.yaml",
        ),
        ("[mtbert, stages]", "[mtbert]", "plan: stages is not among its deps"),
        ("[mtbert, stages]", "[mtbert/, stages/train.py]", "plan: stages is not among its deps"),
        ("[profile, runs]", "[runs]", "plan: profile is not among its params"),
        ("outs: [build/plan]", "outs: [build]", "plan: build/plan is not among its outs"),
    ],
)
def test_a_gap_in_the_deps_is_found(tmp_path: Path, old: str, new: str, message: str) -> None:
    root = made(tmp_path)
    assert old in GOOD["dvc.yaml"]
    (root / "dvc.yaml").write_text(GOOD["dvc.yaml"].replace(old, new), encoding="utf-8")
    assert message in "\n".join(uncovered(root))
