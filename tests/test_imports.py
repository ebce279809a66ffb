"""What may import what, what no file may call, and that each stage in dvc.yaml depends on the list of all code that it runs.

All by reading the sources (ast), importing none. Each check is a function of a project's root that lists what is wrong:
the last tests plant each mistake in a small made-up project and see it found.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.common import CODE
from stages.imports import PACKAGES, closure, code_of_stages, imports, modules, tree

ROOT = Path(__file__).parent.parent
# "may be imported by" goes from left to right
LAYERS = ("kernels", "data", "model", "peft", "evaluation", "training")
REPORT_MAY_IMPORT = {"report", "data", "evaluation", "errors", "files", "seal", "tabular"}
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
BANNED_CALLS = {
    "eval": "eval",
    "exec": "exec",
    "torch.load": "torch.load (it unpickles); use safetensors",
    "yaml.load": "yaml.load; use ruamel.yaml",
    "yaml.unsafe_load": "yaml.unsafe_load; use ruamel.yaml",
    "yaml.full_load": "yaml.full_load; use ruamel.yaml",
    "os.system": "os.system; use subprocess with a list",
    "os.popen": "os.popen; use subprocess with a list",
}
BANNED_ARGUMENTS = {"shell": True, "allow_pickle": True, "typ": "unsafe"}


def wrong_directions(root: Path) -> list[str]:
    graph = imports(root)
    found = []
    for name, targets in graph.items():
        package, _, rest = name.partition(".")
        part = rest.split(".")[0]
        for target in sorted(targets):
            top = target.split(".")[0]
            if package == "mtbert" and part != "cli" and top in ("typer", "dvc", "stages"):
                found.append(f"{name} imports {target}: only mtbert.cli may")
            if target not in graph or package != "mtbert" or top != "mtbert" or part in ("", "cli", "__main__"):
                continue
            other = target.partition(".")[2].split(".")[0]
            if other in ("", part):
                continue
            if other in ("params", "cli"):
                found.append(f"{name} imports {target}: modules take plain arguments, only stages read the settings")
            elif part in ("errors", "files") and other != "errors":
                found.append(f"{name} imports {target}: all others build on it")
            elif part == "report" and other not in REPORT_MAY_IMPORT:
                found.append(f"{name} imports {target}: the report reads results, it computes none")
            elif part in LAYERS and other in LAYERS and LAYERS.index(other) > LAYERS.index(part):
                found.append(f"{name} imports {target}: the order is {' -> '.join(LAYERS)}")
            elif part in LAYERS and other == "report":
                found.append(f"{name} imports {target}: nothing builds on the report")
    for name in graph:
        if name.startswith("mtbert.report"):
            for via in sorted(closure(name, graph)):
                if any(target.split(".")[0] == "torch" for target in graph[via]):
                    found.append(f"{name} loads torch through {via}")
    return found


def sources(root: Path) -> Iterator[Path]:
    for folder in (*PACKAGES, "benchmarks", "reliability", "tools", "tests"):
        yield from sorted((root / folder).rglob("*.py"))


def banned(root: Path) -> list[str]:
    """Calls that run data as code, as path:line: what."""
    found = []
    for path in sources(root):
        module = tree(path)
        names: dict[str, str] = {"eval": "eval", "exec": "exec"}
        for node in ast.walk(module):
            if isinstance(node, ast.Import):
                names.update(
                    (a.asname or a.name.split(".")[0], a.name if a.asname else a.name.split(".")[0]) for a in node.names
                )
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.update((a.asname or a.name, f"{node.module}.{a.name}") for a in node.names)
        for node in ast.walk(module):
            place = f"{path.relative_to(root).as_posix()}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                tops = (
                    {a.name.split(".")[0] for a in node.names} if isinstance(node, ast.Import) else {node.module or ""}
                )
                found += [f"{place}: import of {top}" for top in sorted(tops & BANNED_MODULES)]
            elif isinstance(node, ast.Call):
                head, dot, tail = ast.unparse(node.func).partition(".")
                if what := BANNED_CALLS.get(names.get(head, "?") + dot + tail):
                    found.append(f"{place}: {what}")
                for keyword in node.keywords:
                    bad = BANNED_ARGUMENTS.get(keyword.arg or "")
                    if bad and isinstance(keyword.value, ast.Constant) and keyword.value.value == bad:
                        found.append(f"{place}: {ast.unparse(keyword)}")
    return found


def uncovered(root: Path) -> list[str]:
    """Stages that an edit of the code they run would not re-run, as stage: what is wrong.

    `code` reads the packages and writes a list per stage; every other stage depends on its own list, and on no code beside it.
    """
    found = []
    known, listed = modules(root), code_of_stages(root)
    stages = YAML(typ="safe").load(root / "dvc.yaml")["stages"]
    for stage, entry in stages.items():
        block = entry.get("do", entry)
        command = block["cmd"]
        match = re.fullmatch(r"python -m stages\.(\w+)( \S+)*", command) if isinstance(command, str) else None
        if match is None or f"stages.{match[1]}" not in known:
            found.append(f"{stage}: cmd {command!r} is not `python -m stages.NAME` of a module that exists")
            continue
        if match[1] not in listed:
            found.append(f"{stage}: stages.{match[1]} does not import stages.common.start, so it is not listed")
            continue
        wanted = set(PACKAGES) if match[1] == "code" else {f"{CODE.as_posix()}/{match[1]}.json"}
        deps = {
            dep for dep in _paths(block, "deps") if dep.split("/")[0] in PACKAGES or dep.startswith(CODE.as_posix())
        }
        found += [f"{stage}: {dep} is not among its deps" for dep in sorted(wanted - deps)]
        found += [f"{stage}: {dep} is not its code" for dep in sorted(deps - wanted)]
    if CODE.as_posix() not in _paths(stages.get("code", {}), "outs"):
        found.append(f"code: {CODE.as_posix()} is not among its outs")
    return found


def _paths(block: dict[str, Any], key: str) -> list[str]:
    return [(entry if isinstance(entry, str) else next(iter(entry))).rstrip("/") for entry in block.get(key, [])]


def test_imports_go_one_way() -> None:
    assert not (found := wrong_directions(ROOT)), "\n" + "\n".join(found)


def test_nothing_runs_data_as_code() -> None:
    assert not (found := banned(ROOT)), "\n" + "\n".join(found)


def test_each_stage_depends_on_the_list_of_the_code_it_runs() -> None:
    assert not (found := uncovered(ROOT)), "\n" + "\n".join(found)


GOOD = {
    "mtbert/__init__.py": "",
    "mtbert/errors.py": "class MtbertError(Exception): ...",
    "mtbert/data/__init__.py": "",
    "mtbert/data/tasks.py": "from mtbert.errors import MtbertError",
    "mtbert/model/__init__.py": "",
    "mtbert/model/bert.py": "import torch\n\ndef build():\n    from ..data import tasks\n    return tasks",
    "mtbert/report/__init__.py": "",
    "mtbert/report/page.py": "from mtbert.data import tasks\nTEMPLATE = 'page.j2'",
    "mtbert/report/page.j2": "<html>",
    "stages/__init__.py": "",
    "stages/common.py": "def start(main): main()",
    "stages/code.py": "from stages.common import start\nstart(print)",
    "stages/train.py": "from mtbert.model.bert import build\nfrom stages.common import start\nstart(build().eval)",
    "stages/report.py": "import mtbert.report.page\nfrom .common import start\nstart(print)",
    "dvc.yaml": """
stages:
  code:
    cmd: python -m stages.code
    deps: [mtbert, stages]
    outs: [build/code]
  train:
    foreach: {a: 1}
    do:
      cmd: python -m stages.train ${key}
      deps: [data/raw, build/code/train.json]
  report:
    cmd: python -m stages.report
    deps: [build/code/report.json]
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
    assert wrong_directions(root) == banned(root) == uncovered(root) == []


@pytest.mark.parametrize(
    ("module", "code", "message"),
    [
        ("data__tasks", "from mtbert.model import bert", "mtbert.data.tasks imports mtbert.model"),
        ("data__tasks", "def f():\n    import mtbert.model.bert", "mtbert.data.tasks imports mtbert.model.bert"),
        ("data__tasks", "from ..model.bert import build", "mtbert.data.tasks imports mtbert.model.bert"),
        ("errors", "import mtbert.data.tasks", "mtbert.errors imports mtbert.data.tasks"),
        ("model__bert", "import typer", "mtbert.model.bert imports typer"),
        ("model__bert", "from dvc.api import open", "mtbert.model.bert imports dvc.api"),
        ("model__bert", "import stages.train", "mtbert.model.bert imports stages.train"),
        ("model__bert", "from mtbert.report import page", "nothing builds on the report"),
        ("report__page", "import mtbert.model.bert", "the report reads results"),
        ("report__page", "import torch", "mtbert.report.page loads torch through mtbert.report.page"),
        ("data__tasks", "import torch.nn", "mtbert.report.page loads torch through mtbert.data.tasks"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, module: str, code: str, message: str) -> None:
    assert message in "\n".join(wrong_directions(made(tmp_path, **{module: code})))


def test_settings_stop_at_the_stages(tmp_path: Path) -> None:
    root = made(tmp_path, params="", model__bert="from mtbert import params")
    assert "mtbert.model.bert imports mtbert.params" in "\n".join(wrong_directions(root))


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import torch as t\nt.load('x')",
        "from torch import load\nload('x')",
        "import yaml\nyaml.load('x')",
        "eval('1')",
        "exec('1')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import os\nos.system('ls')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "from ruamel.yaml import YAML\nYAML(typ='unsafe')",
    ],
)
def test_data_run_as_code_is_found(tmp_path: Path, code: str) -> None:
    (found,) = banned(made(tmp_path, data__tasks=code))
    assert found.startswith(f"mtbert/data/tasks.py:{len(code.splitlines())}: ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (", build/code/train.json", "", "train: build/code/train.json is not among its deps"),
        ("build/code/train.json", "build/code/report.json", "train: build/code/train.json is not among its deps"),
        ("train.json]", "train.json, build/code/report.json]", "train: build/code/report.json is not its code"),
        ("train.json]", "train.json, build/code]", "train: build/code is not its code"),
        ("report.json]", "report.json, mtbert/report]", "report: mtbert/report is not its code"),
        ("python -m stages.report", "python -m stages.train", "report: build/code/train.json is not among its deps"),
        ("python -m stages.report", "python -m stages.page", "report: cmd 'python -m stages.page' is not"),
        ("python -m stages.report", "mtbert report && true", "report: cmd 'mtbert report && true' is not"),
        ("python -m stages.report", "python -m stages.common", "report: stages.common does not import"),
        ("[mtbert, stages]", "[mtbert]", "code: stages is not among its deps"),
        ("[mtbert, stages]", "[mtbert/, stages/train.py]", "code: stages is not among its deps"),
        ("outs: [build/code]", "outs: [build]", "code: build/code is not among its outs"),
    ],
)
def test_a_gap_in_the_deps_is_found(tmp_path: Path, old: str, new: str, message: str) -> None:
    root = made(tmp_path)
    assert old in GOOD["dvc.yaml"]
    (root / "dvc.yaml").write_text(GOOD["dvc.yaml"].replace(old, new), encoding="utf-8")
    assert message in "\n".join(uncovered(root))
