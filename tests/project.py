"""A tiny copy of the project: generated data, a random two-layer encoder, short runs; for trials that need the real stages."""

import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from mtbert.corpus.source import write_sample
from mtbert.params import load_params
from mtbert.tasks.paper import TASKS
from mtbert.tasks.task import SPLITS, raw_name

ROOT = Path(__file__).parent.parent
yaml = YAML()
yaml.representer.ignore_aliases = lambda *_: True


def tiny_project(folder: Path, **settings: Any) -> Path:
    """Copy code, graph and settings into `folder`, small enough that a run takes a second.

    Args:
        settings: further params by dotted key, `__` for the dot.
    """
    ignore = shutil.ignore_patterns("__pycache__", "cache", "tmp", "*.csv", "config.local")
    for name in ("mtbert", "stages", ".dvc", "data/course", "data/encoder"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    shrink(folder, **settings)
    return folder


def keep_runs(project: Path, *kept: str) -> None:
    """Leave these runs of the graph and the views that show one of them; a run inherits from the nearest that is left."""
    tree = yaml.load(project / "params.yaml")
    runs = tree["runs"]
    for name in kept:
        while runs[name].get("from", name) not in kept:
            runs[name]["from"] = runs[runs[name]["from"]]["from"]
    for name in set(runs) - set(kept):
        del runs[name]
    for kind in ("tables", "figures"):
        for view, rows in list(tree[kind].items()):
            for row in [row for row, run in rows.items() if run not in kept]:
                del rows[row]
            if not rows:
                del tree[kind][view]
    yaml.dump(tree, project / "params.yaml")


def few_runs(project: Path) -> None:
    """Leave four runs, a table and two figures of the graph: what trials of single runs need, in half a minute."""
    edit(project, tables__table1__most_efficient="dora_r4")
    keep_runs(project, "baseline", "key_update_1", "best_performance", "dora_r4")
    tree = yaml.load(project / "params.yaml")
    for view in ("table2", "table3", "table4"):
        del tree["tables"][view]
    del tree["figures"]["figure3"], tree["figures"]["figure4"]
    yaml.dump(tree, project / "params.yaml")


def best_run(project: Path, **more: Any) -> None:
    """Leave `best_performance`, written out in full, a table and a figure of it, and add `more` runs that inherit from it."""
    best = load_params(project / "params.yaml").runs["best_performance"].model_dump()
    row = {"best_performance": "best_performance"}
    edit(project, runs={"best_performance": best, **more}, tables={"table4": row}, figures={"figure1": row})


def course_files(folder: Path, rows: int = 24) -> None:
    """Write generated train and dev files under the course's published names, this many rows each."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as raw:
        write_sample(Path(raw) / "raw", 1, {task: dict.fromkeys(SPLITS, rows) for task in TASKS}, 0.0)
        for task in TASKS.values():
            for split in ("train", "dev"):
                shutil.copy(Path(raw) / "raw" / raw_name(task, split), folder / task.file(split))


def shrink(project: Path, **settings: Any) -> None:
    """Set a project's params so that a run takes a second; these further ones take precedence."""
    sizes = {task: {"train": 24, "dev": 24, "test": 16} for task in ("sst", "quora", "sts")}
    tiny: dict[str, Any] = {"data__sample__sizes": sizes, "compute__threads": 1, "compute__precision": "fp32"}
    for profile in ("sample", "course"):
        tiny[f"profiles__{profile}__encoder__source"] = "random"
        for key, value in (("epochs", 1), ("epoch_end", 2), ("batch_size", 4)):
            tiny[f"profiles__{profile}__budget__{key}"] = value
    edit(project, **{**tiny, **settings})


def edit(project: Path, **settings: Any) -> None:
    """Set params by dotted key (`__` for the dot), keeping comments, as an editor would."""
    path = project / "params.yaml"
    tree = yaml.load(path)
    for key, value in settings.items():
        node = tree
        *parents, last = key.split("__")
        for parent in parents:
            node = node[parent]
        node[last] = value
    yaml.dump(tree, path)


def add_settings(project: Path, block: str) -> None:
    """Add a page's YAML to params.yaml, as its reader would."""
    tree = yaml.load(project / "params.yaml")
    for section, added in yaml.load(block).items():
        tree[section].update(added)
    yaml.dump(tree, project / "params.yaml")


def start(project: Path, *command: str, umask: int = -1, **variables: str) -> subprocess.Popen[str]:
    """Start a command as a user in the project would, with these further variables; output and errors in one pipe."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(project),
        "OMP_NUM_THREADS": "1",
        "DVC_SITE_CACHE_DIR": str(project / ".dvc-site-cache"),
        "MTBERT_CHECKPOINT_SECONDS": "0",
        **{f"GIT_{who}_{what}": "trial@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        **variables,
    }
    pipe, errors = subprocess.PIPE, subprocess.STDOUT
    return subprocess.Popen(command, cwd=project, env=environment, umask=umask, stdout=pipe, stderr=errors, text=True)


def call(project: Path, *command: str, umask: int = -1, **variables: str) -> tuple[int, str]:
    """Run a command to its end, with these further variables: exit status and output."""
    process = start(project, *command, umask=umask, **variables)
    output = process.communicate(timeout=1800)[0]
    return process.returncode, output


def must(project: Path, *command: str, umask: int = -1, **variables: str) -> str:
    """Run a command that a trial builds on; its output.

    Raises:
        RuntimeError: it fails.
    """
    status, output = call(project, *command, umask=umask, **variables)
    if status:
        raise RuntimeError(f"{' '.join(command)}: status {status}: {output[-2000:]}")
    return output


def commit(project: Path, message: str, date: str = "") -> None:
    """Commit all that git does not ignore, in a repository that is made where there is none yet."""
    if not (project / ".git").exists():
        must(project, "git", "init", "-q")
    must(project, "git", "add", "-A")
    dates: dict[str, Any] = {f"GIT_{who}_DATE": date for who in ("AUTHOR", "COMMITTER") if date}
    must(project, "git", "commit", "-q", "-m", message, **dates)


def fork(work: Callable[[], Any]) -> int:
    """Run `work` in a fork of this process; the fork's id.

    Torch is imported already, so that a trial costs milliseconds. Only for a process that has run no backward: its threads do not
    survive a fork.
    """
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(child: int) -> int:
    """Wait for a fork; its exit status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def forked(work: Callable[[], Any]) -> int:
    """Run `work` in a fork to its end; its exit status."""
    return ended(fork(work))


def isolated(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call a module's function in a fresh process of one thread: for what forks, patches, limits resources or changes the folder."""
    context = get_context("spawn")
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (1,)) as pool:
        return pool.submit(work, *arguments).result()
