"""The real graph, tiny, through the real dvc: every stage runs once, a second repro runs nothing, edits touch what they must."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
yaml = YAML()


def call(project: Path, *command: str, ok: bool = True) -> str:
    """Run a command as a user in the project would; its output."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(project),
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
    }
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=900)
    assert (done.returncode == 0) == ok, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def edit(project: Path, **values: object) -> None:
    """Set params by dotted key (`__` for the dot), keeping anchors, as an editor would."""
    path = project / "params.yaml"
    tree = yaml.load(path)
    for key, value in values.items():
        node = tree
        *parents, last = key.split("__")
        for parent in parents:
            node = node[parent]
        node[last] = value
    yaml.dump(tree, path)


def commit(project: Path, message: str) -> None:
    call(project, "git", "add", "-A")
    call(project, "git", "commit", "-q", "-m", message)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with tiny data and a tiny random encoder, after one `dvc repro`."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("mtbert", "stages", ".dvc", "data/course"):
        ignore = shutil.ignore_patterns("__pycache__", "cache", "tmp", "*.csv")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    tiny = {"train": 24, "dev": 24, "test": 16}
    edit(
        folder,
        data__sample__sizes={task: dict(tiny) for task in ("sst", "quora", "sts")},
        encoder__source="random",
        compute__threads=1,
        runs__baseline__epochs=1,
        runs__baseline__epoch_end=2,
        runs__baseline__batch_size=4,
    )
    call(folder, "git", "init", "-q")
    commit(folder, "tiny")
    (folder / "first.log").write_text(call(folder, "dvc", "repro"), encoding="utf-8")
    commit(folder, "results")
    return folder


def stages_run(output: str) -> set[str]:
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def stale(project: Path) -> set[str]:
    """The stages that `dvc repro` would run for certain; what depends on their outputs runs if those change."""
    return {
        line.split("'")[1]
        for line in call(project, "dvc", "repro", "--dry").splitlines()
        if line.startswith("Running stage")
    }


def restored(project: Path) -> None:
    call(project, "git", "checkout", "-q", "HEAD", "--", ".")  # from HEAD: autostage has put dvc.lock into the index
    call(project, "dvc", "checkout", "-q")


def test_every_stage_ran_and_left_its_outputs(project: Path) -> None:
    names = set(call(project, "dvc", "stage", "list", "--name-only").split())
    assert stages_run((project / "first.log").read_text(encoding="utf-8")) == names
    assert len(names) < 80
    metrics = json.loads((project / "reports/metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == set(yaml.load(project / "params.yaml")["runs"])
    for table in ("table1", "table2", "table3", "table4"):
        for ending in ("csv", "md", "tex"):
            assert (project / f"reports/tables/{table}.{ending}").stat().st_size > 100
    for figure in ("figure1", "figure2", "figure3", "figure4"):
        assert (project / f"reports/figures/{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (project / f"reports/figures/{figure}.svg").read_text(encoding="utf-8")
    assert "<html" in (project / "reports/index.html").read_text(encoding="utf-8")
    assert not list((project / ".mtbert").glob("*/*.safetensors")), "checkpoints are removed when the outs are written"


def test_second_repro_runs_nothing(project: Path) -> None:
    assert "up to date" in call(project, "dvc", "repro")


def test_a_comment_in_the_readme_makes_nothing_stale(project: Path) -> None:
    with (project / "README.md").open("a", encoding="utf-8") as file:
        file.write("\n<!-- a comment -->\n")
    assert stale(project) == set()
    restored(project)


def test_editing_one_run_reruns_that_run_and_its_descendants_only(project: Path) -> None:
    edit(project, runs__sampler_balanced__sampler=0.25)
    assert stale(project) == {"train@sampler_balanced", "evaluate@sampler_balanced"}
    ran = stages_run(call(project, "dvc", "repro"))
    assert ran == {"train@sampler_balanced", "evaluate@sampler_balanced", "table3", "report"}
    restored(project)
    edit(project, runs__dora_r8__adapter__rank=2)
    assert stale(project) == {"convert@dora_r8", "train@dora_r8", "evaluate@dora_r8"}
    restored(project)


def test_editing_an_anchor_makes_its_heirs_stale(project: Path) -> None:
    edit(project, runs__key_update_3__pooling="max")
    trained = {name.removeprefix("train@") for name in stale(project) if name.startswith("train@")}
    assert trained == set(yaml.load(project / "params.yaml")["runs"]) - {"baseline", "key_update_1", "key_update_2"}
    restored(project)


def test_params_metrics_and_plots_diff_and_an_experiment(project: Path) -> None:
    output = call(project, "dvc", "exp", "run", "-S", "runs.dora_r4.learning_rate=0.01", "evaluate@dora_r4")
    assert stages_run(output) == {"convert@dora_r4", "train@dora_r4", "evaluate@dora_r4"}
    assert "runs.dora_r4.learning_rate" in call(project, "dvc", "params", "diff")
    assert stages_run(call(project, "dvc", "repro")) == {"figure3", "report"}
    assert "dora_r4.sst" in call(project, "dvc", "metrics", "diff", "--all")
    call(project, "dvc", "plots", "diff")
    assert "figure2.csv" in (project / "dvc_plots/index.html").read_text(encoding="utf-8")
    shutil.rmtree(project / "dvc_plots")
    restored(project)


def test_a_misspelt_key_is_one_clear_error(project: Path) -> None:
    edit(project, runs__baseline__poling="mean")
    output = call(project, sys.executable, "-m", "stages.train", "baseline", ok=False)
    assert "error: params.yaml: unknown key runs.baseline.poling; did you mean 'pooling'?" in output
    assert "Traceback" not in output
    restored(project)


def test_changed_source_files_are_noticed(project: Path, tmp_path: Path) -> None:
    source = tmp_path / "course"
    source.mkdir()
    (source / "ids-sst-train.csv").write_text("x", encoding="utf-8")
    edit(project, data__source="cs224n", data__path=str(source))
    output = call(project, "dvc", "repro", "fetch", ok=False)
    assert "ids-sst-dev.csv" in output, "the missing files are named"
    assert "Traceback" not in output
    restored(project)
