"""`make reproduce`, on a toy graph: the user's data, and a profile as an experiment that leaves the workspace as it is."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.processes import wait_until

ROOT = Path(__file__).parent.parent
GRAPH = """
stages:
  prepare:
    cmd: mkdir -p data/raw && cat data/course/ids-sst-train.csv > data/raw/sst.csv || echo generated > data/raw/sst.csv
    params: [profile]
    deps: [data/course]
    outs: [data/raw]
  convert:
    foreach: [one, two, three]
    do:
      cmd: mkdir -p models/converted && echo ${item} > models/converted/${item}
      deps: [data/raw]
      outs: ["models/converted/${item}"]
  train:
    foreach: [one, two, three]
    do:
      cmd: mkdir -p models && echo ${item} > models/${item}
      deps: [data/raw, "models/converted/${item}"]
      outs: ["models/${item}"]
  evaluate:
    foreach: [one, two, three]
    do:
      cmd: bin/evaluate ${item}
      deps: [data/raw, "models/${item}"]
      outs: ["results/${item}"]
  report:
    cmd: mkdir -p reports/${profile} && cat data/raw/sst.csv > reports/${profile}/index.html
    deps: [data/raw, results/one, results/two, results/three]
    outs: [{"reports/${profile}/index.html": {cache: false}}]
"""
# Takes until the next run has begun, and no longer than $WAIT seconds.
EVALUATE = """#!/bin/sh
echo "$1" >> begun; echo $$ >> pids
[ "$1" != "$FAILS" ] || { echo "error: $1 failed" >&2; exit 1; }
for i in $(seq "${WAIT:-0}0"); do [ "$(wc -l < begun)" -gt 1 ] && break; sleep 0.1; done
[ -z "$COMMITS" ] || git -C "$COMMITS" commit --quiet --allow-empty --message "while $1 runs" || exit 1
[ -z "$FOREVER" ] || exec sleep "$FOREVER"
mkdir -p results && echo "$(wc -l < begun)" > "results/$1"
"""
# The real settings: in them `sample` generates its data, and `course` reads the folder's.
PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")
COURSE = PARAMS.replace("\nprofile: sample", "\nprofile: course")
IGNORED = "/data/raw\n/data/course/*.csv\n/.dvc-site-cache\n/results\n/models\nbegun\npids\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A committed toy project in a path with a space, and a folder of data beside it."""
    (tmp_path / "my data").mkdir()
    (tmp_path / "my data/ids-sst-train.csv").write_text("mine\n", encoding="utf-8")
    (tmp_path / "my data/other.csv").write_text("not the course's\n", encoding="utf-8")
    folder = tmp_path / "a b"
    for name, text in {
        "params.yaml": PARAMS,
        "dvc.yaml": GRAPH,
        ".gitignore": IGNORED,
        "data/course/README.md": "The course's files.\n",
        "bin/evaluate": EVALUATE,
        "bin/mtbert": '#!/bin/sh\n[ "$2" = course ] || { echo "error: no profile is called $2" >&2; exit 1; }\necho "cost of $2"\n',
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for name in ("mtbert", "evaluate"):
        (folder / "bin" / name).chmod(0o755)
    (folder / "tools").mkdir()
    shutil.copy(ROOT / "tools/reproduce.sh", folder / "tools")
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    local = f"[core]\n    site_cache_dir = {folder / '.dvc-site-cache'}\n"  # as `dvc config --local` writes it
    (folder / ".dvc/config.local").write_text(local, encoding="utf-8")
    must(folder, "git", "init", "-q")
    must(folder, "git", "add", "-A")
    must(folder, "git", "commit", "-qm", "start")
    return folder


def call(project: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    search = [project / "bin", Path(sys.executable).parent, os.environ["PATH"]]
    environment = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DVC_", "GIT_", "PROFILE", "DATA"))
        },
        "PATH": os.pathsep.join(map(str, search)),
        **{f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        **variables,
    }
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def must(project: Path, *command: str, **variables: str) -> str:
    done = call(project, *command, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def reproduce(project: Path, **variables: str) -> str:
    return must(project, "tools/reproduce.sh", **variables)


def test_a_profile_is_an_experiment_whose_report_comes_back(project: Path) -> None:
    assert f"The report: {project}/reports/sample/index.html" in reproduce(project)
    told = reproduce(project, PROFILE="course", DATA="../my data")
    assert told.index("cost of course") < told.index(f"The report: {project}/reports/course/index.html")
    assert (project / "reports/course/index.html").read_text(encoding="utf-8") == "mine\n"
    # The workspace is as it was, but for the data and the report.
    assert (project / "params.yaml").read_text(encoding="utf-8") == PARAMS
    assert (project / "data/raw/sst.csv").read_text(encoding="utf-8") == "generated\n"
    assert (project / "data/course/ids-sst-train.csv.dvc").exists()
    assert not (project / "data/course/other.csv").exists()

    # Once more with other data: the experiment is replaced.
    (project.parent / "my data/ids-sst-train.csv").write_text("mine, mended\n", encoding="utf-8")
    reproduce(project, PROFILE="course", DATA="~/my data", HOME=str(project.parent))
    assert (project / "reports/course/index.html").read_text(encoding="utf-8") == "mine, mended\n"
    assert must(project, "dvc", "exp", "list", "--name-only").split() == ["course"]
    # And with nothing changed.
    reproduce(project, PROFILE="course", DATA="../my data")

    must(project, "dvc", "exp", "apply", "course")
    assert (project / "params.yaml").read_text(encoding="utf-8") == COURSE
    assert (project / "data/raw/sst.csv").read_text(encoding="utf-8") == "mine, mended\n"
    (project / "sub").mkdir()
    must(project / "sub", "dvc", "status")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"DATA": "../none"}, "error: DATA=../none: no such folder"),
        ({"DATA": "tools"}, "error: DATA=tools: has none of the course's files"),
        (
            {"DATA": "../my data"},
            "error: DATA=../my data: the profile sample, which params.yaml selects, does not read it; give PROFILE=course",
        ),
        ({"DATA": "../my data", "PROFILE": "curse"}, "error: params.yaml: profile: no profile is called 'curse'"),
        ({"PROFILE": "curse"}, "error: no profile is called curse"),
    ],
)
def test_one_error(project: Path, variables: dict[str, str], message: str) -> None:
    fails(project, message, **variables)


def fails(project: Path, message: str, **variables: str) -> None:
    """It fails with one line, and before it copies data."""
    done = call(project, "tools/reproduce.sh", **variables)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert not list((project / "data/course").glob("*.csv*"))


def test_the_profile_that_is_given_decides_whether_data_is_read(project: Path) -> None:
    (project / "params.yaml").write_text(COURSE, encoding="utf-8")
    fails(project, "error: DATA=../my data: the profile sample does not read it", PROFILE="sample", DATA="../my data")


def test_data_that_would_go_where_the_profile_does_not_read(project: Path) -> None:
    (project / "params.yaml").write_text(PARAMS.replace("  path: data/course", "  path: /usr"), encoding="utf-8")
    message = "error: DATA=../my data: its files would go to data/course, but data.path in params.yaml is /usr; leave DATA out"
    fails(project, message, PROFILE="course", DATA="../my data")


def test_invalid_settings_are_told_before_data_is_copied(project: Path) -> None:
    (project / "params.yaml").write_text(PARAMS.replace("\nruns:", "\nrnus:"), encoding="utf-8")
    fails(project, "error: params.yaml: unknown key rnus", DATA="../my data")


def test_an_error_of_dvc_is_told(project: Path) -> None:
    (project / "data/course/ids-sst-train.csv.dvc").mkdir()
    done = call(project, "tools/reproduce.sh", PROFILE="course", DATA="../my data")
    assert done.returncode != 0 and "ERROR: " in done.stderr


def test_a_commit_while_an_experiment_runs(project: Path) -> None:
    told = reproduce(project, PROFILE="course", DATA="../my data", COMMITS=str(project))
    assert "while three runs" in must(project, "git", "log", "--format=%s")
    assert f"The report: {project}/reports/course/index.html" in told
    assert (project / "reports/course/index.html").read_text(encoding="utf-8") == "mine\n"


def test_two_runs_at_a_time(project: Path) -> None:
    reproduce(project, WAIT="60")
    assert (project / "results/one").read_text(encoding="utf-8") != "1\n", "the first run ended before another began"
    assert sorted((project / "begun").read_text(encoding="utf-8").split()) == ["one", "three", "two"]
    assert "up to date" in must(project, "dvc", "status")


def test_a_failed_run_is_told_last(project: Path) -> None:
    done = call(project, "tools/reproduce.sh", FAILS="two")
    assert done.returncode != 0
    assert (
        done.stderr.splitlines()[-1]
        == "ERROR: failed to reproduce 'evaluate@two': failed to run: bin/evaluate two, exited with 1"
    )
    assert (project / "results/three").exists(), "a run of the other lane was lost"
    assert "reports/sample/index.html" in reproduce(project)


def test_ctrl_c_ends_both_lanes(project: Path) -> None:
    process = subprocess.Popen(
        ["tools/reproduce.sh"],
        cwd=project,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "FOREVER": "600"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # As in a terminal; a shell that starts the tests in the background lets them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_until(
            lambda: (project / "pids").exists() and (project / "pids").read_text(encoding="utf-8").count("\n") == 2
        )
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130
        for pid in map(int, (project / "pids").read_text(encoding="utf-8").split()):
            assert not Path(f"/proc/{pid}").exists()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "reports/sample/index.html" in reproduce(project)


def test_an_archive_without_git(project: Path) -> None:
    shutil.rmtree(project / ".git")
    message = "error: PROFILE=course runs as a DVC experiment, which needs a git repository"
    fails(project, message, PROFILE="course")
    fails(project, message, PROFILE="course", DATA="../my data")
    assert "reports/sample/index.html" in reproduce(project)
    # What the error tells to do.
    must(project, "sh", "-c", "git init -q && git add -A && git commit -qm start")
    assert "reports/course/index.html" in reproduce(project, PROFILE="course", DATA="../my data")


def test_data_in_an_archive_without_git(project: Path) -> None:
    shutil.rmtree(project / ".git")
    (project / "params.yaml").write_text(COURSE, encoding="utf-8")
    reproduce(project, DATA="../my data")
    assert (project / "reports/course/index.html").read_text(encoding="utf-8") == "mine\n"
