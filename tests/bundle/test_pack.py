"""A bundle's parts, what it refuses, and that it is complete."""

import os
import shutil
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mtbert.bundle import pack
from mtbert.bundle.pack import Parts, main
from mtbert.bundle.packages import GIVEN, HERE, installed, required
from mtbert.errors import MtbertError
from mtbert.workflow.graph import Job
from tests.project import ROOT, commit, keep_runs, must, tiny_project


def test_parts_have_a_size_and_make_the_whole(tmp_path: Path) -> None:
    parts = Parts(tmp_path, 10)
    for text in (b"a" * 7, b"b" * 25, b"", b"c" * 8):
        assert parts.write(text) == len(text)
    assert parts.names == ["part-1", "part-2", "part-3", "part-4"]
    found = [(tmp_path / name).read_bytes() for name in parts.names]
    assert [len(part) for part in found] == [10, 10, 10, 10]
    assert b"".join(found) == b"a" * 7 + b"b" * 25 + b"c" * 8


def write_study(runs: str, project: Path = Path()) -> None:
    """The study `ranks`, with DVC's link to its graph."""
    folder = project / "studies/ranks"
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(f"tables: {{}}\nfigures: {{}}\nruns:\n  {runs}\n", encoding="utf-8")
    (folder / "dvc.yaml").symlink_to("../study.yaml")


@pytest.mark.parametrize(
    ("runs", "studies", "stale", "message"),
    [
        (["best_performace"], [], [], r"--run: no run of params\.yaml is called .best_performace.; did you mean"),
        (
            ["dora_r4"],
            [],
            ["prepare", "convert@dora_r4", "convert@dora_r8"],
            "^convert@dora_r4, prepare: not up to date",
        ),
        (["dora_r8"], [], [], r"--run: dora_r8 starts from another run's weights"),
        ([], ["rank"], [], r"--study: studies/rank/params\.yaml: not found; did you mean 'ranks'"),
        ([], ["ranks"], ["encoder"], "^encoder: not up to date"),
        ([], ["ranks"], [], "--study: dora_r2 of ranks starts from another run's weights"),
    ],
)
def test_what_cannot_be_packed_is_one_error_and_writes_nothing(
    change: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    runs: list[str], studies: list[str], stale: list[str], message: str,
) -> None:  # fmt: skip
    write_study(
        "dora_r2: {from: dora_r4, adapter: {rank: 2, alpha: 2, start_from: other}}\n  other: {from: best_performance}"
    )
    change(dora_r8={"adapter": {"start_from": "best_performance"}})
    monkeypatch.setattr(pack, "stale_jobs", lambda: [Job(stage, "", []) for stage in stale])
    with pytest.raises(MtbertError, match=message):
        main(tmp_path / "bundle", runs, studies)
    assert not (tmp_path / "bundle").exists()


def test_a_run_s_aggregation_is_packed(
    change: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collected(_site: Path, more: list[str], _python: str) -> None:
        raise MtbertError(" and ".join(more))

    change(concat_u_v={"sampler": "joint", "aggregation": "pcgrad"})
    monkeypatch.setattr(pack, "stale_jobs", lambda: [])
    monkeypatch.setattr(pack, "collect", collected)
    with pytest.raises(MtbertError, match=r"^rich and torchjd$"):
        main(tmp_path / "bundle", ["baseline", "concat_u_v"], more=["rich"])


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    with pytest.raises(MtbertError, match="thesis: exists and is no bundle; name a new folder"):
        main(tmp_path / "thesis")


def test_results_in_the_bundle_s_folder_are_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "run.sh").touch()
    (tmp_path / "results").mkdir()
    with pytest.raises(MtbertError, match="results: would be deleted; `mtbert take` it and move it away"):
        main(tmp_path)
    assert (tmp_path / "results").is_dir()


def bare_python(folder: Path) -> Path:
    """A virtual environment with links to torch, numpy and what these require, and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in required(GIVEN):
        for top in {file.parts[0] for file in installed(name).files or ()} - {"..", "__pycache__"}:
            (site / top).symlink_to(str(installed(name).locate_file(top)))
    return folder / "bin/python"


def without_a_network() -> list[str]:
    """A prefix for commands: in a network namespace of its own. Where the system does not allow it, none, and a warning says so."""
    prefix = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") and not subprocess.run([*prefix, "true"], capture_output=True).returncode:
        return prefix
    warnings.warn("`unshare --map-root-user --net` does not work here, so the network is not cut off", stacklevel=2)
    return []


@pytest.mark.slow
def test_a_run_elsewhere_is_up_to_date_here(tmp_path: Path) -> None:
    """Two runs and a study's in a bundle, with torch and numpy alone and no network; a run that was stopped goes on; DVC accepts the
    results.

    Without a GPU the other steps get as far as their imports: all GPU tests are skipped, and the benchmarks ask for a card. Tiny benchmarks on
    a CPU take minutes and are rehearsed by themselves, in tests/test_benchmarks.py.
    """
    project = tiny_project(tmp_path / "home", profiles__sample__budget__epoch_end=30)
    keep_runs(project, "baseline", "dora_r4")
    write_study("dora_r2: {from: dora_r4, adapter: {rank: 2, alpha: 2}}", project)
    shutil.copy(ROOT / "studies/study.yaml", project / "studies")
    for name in ("tests", "benchmarks", "requirements"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", project)
    commit(project, "tiny")
    must(project, "dvc", "repro", "prepare", "convert")
    there = tmp_path / "there"
    chosen = ("--run", "baseline", "--run", "dora_r4", "--study", "ranks")
    printed = must(project, "python", "-m", "mtbert", "bundle", str(there), "--part-megabytes", "10", *chosen)
    assert "2 parts" in printed and "runs: baseline, dora_r4, ranks/dora_r2" in printed
    environment = {
        **{key: os.environ[key] for key in ("PATH",)},
        **{"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "HF_HUB_OFFLINE": "1", "HTTPS_PROXY": "http://127.0.0.1:9"},
        **{"PYTHON": str(bare_python(tmp_path / "bare")), "MTBERT_CHECKPOINT_SECONDS": "0"},
    }

    apart = without_a_network()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*apart, "bash", str(there / "run.sh"), *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)

    moved = (there / "part-2").rename(tmp_path / "part-2")
    assert "part-2: not found; copy all parts" in run("train").stderr
    moved.rename(there / "part-2")
    stopped = run("train", "--minutes", "0")
    assert "runs finished: 0 of 3; not: baseline, dora_r4, ranks/dora_r2" in stopped.stdout, stopped
    done = run("train", "--jobs", "2")
    assert "runs finished: 3 of 3" in done.stdout, done
    if not torch.cuda.is_available():
        others = run("tests", "benchmarks").stdout
        tests, benchmarks = (
            " ".join((there / f"results/logs/{step}.log").read_text().split()) for step in ("tests", "benchmarks")
        )
        assert "pytest tests: done" in others and " skipped" in tests and "error" not in tests, tests[-3000:]
        assert "benchmarks.gpu benchmarks: failed with status 1" in others
        assert "torch sees no CUDA device" in benchmarks, benchmarks[-3000:]
    taken = must(project, "python", "-m", "mtbert", "take", str(there / "results"))
    assert "taken: baseline, dora_r4. `dvc repro`" in taken
    assert "taken: ranks/dora_r2. `dvc repro studies/ranks/dvc.yaml`" in taken
    names = [f"{stage}@{run}" for stage in ("train", "evaluate") for run in ("baseline", "dora_r4")]
    assert "up to date" in must(project, "dvc", "status", *names)
    assert "stages.train" not in must(project, "dvc", "repro")
    assert (project / "reports/sample/index.html").is_file()
    assert "stages.train" not in must(project, "dvc", "repro", "studies/ranks/dvc.yaml")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A bundle of two parts, whose run.sh prints `done`."""
    there = tmp_path / "there"
    there.mkdir()
    parts = Parts(there, 200)
    with tarfile.open(fileobj=parts, mode="w|xz") as tar:
        for name, code in (("__init__", ""), ("bundle/__init__", ""), ("bundle/remote", "print('done')")):
            pack._add(tar, f"project/mtbert/{name}.py", code.encode())
    assert len(parts.names) == 2
    (there / "run.sh").write_text(pack._script(parts, HERE), encoding="utf-8")
    return there


def started(bundle: Path, python: str | Path = sys.executable) -> subprocess.Popen[str]:
    (bundle.parent / "tmp").mkdir(exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(bundle.parent / "tmp"), "PYTHON": str(python)}
    pipe = subprocess.PIPE
    return subprocess.Popen(["bash", bundle / "run.sh"], env=environment, stdout=pipe, stderr=pipe, text=True)


def test_a_truncated_part_is_one_error(small: Path) -> None:
    last = small / "part-2"
    last.write_bytes(last.read_bytes()[:-8])
    process = started(small)
    message = f"error: {small}: the parts are damaged or incomplete; copy them again\n"
    assert (*process.communicate(), process.returncode) == ("", message, 1)
    assert list((small.parent / "tmp").iterdir()) == []


WAITS = """#!/bin/bash
if [[ $2 == *extractall* ]]; then
    echo "${@: -1}" >>FOLDER/unpacking
    while [ "$(wc -l <FOLDER/unpacking)" -lt 2 ]; do sleep 0.02; done
fi
exec PYTHON "$@"
"""


def test_two_that_unpack_at_once_do_not_share_a_folder(small: Path) -> None:
    python = small.parent / "python"
    text = WAITS.replace("FOLDER", str(small.parent)).replace("PYTHON", sys.executable)
    python.write_text(text, encoding="utf-8")
    python.chmod(0o755)
    for process in [started(small, python), started(small, python)]:
        assert (*process.communicate(), process.returncode) == ("done\n", "", 0)
    assert len(set((small.parent / "unpacking").read_text(encoding="utf-8").splitlines())) == 2
    (left,) = (small.parent / "tmp").iterdir()
    assert left.name.startswith("mtbert-") and (left / "complete").exists()
    assert started(small).communicate() == ("done\n", ""), "it is unpacked already"
    (left / "complete").unlink()
    assert f"{left}: incomplete, or another user's; remove it" in started(small).communicate()[1]
