"""Jobs that take a GPU each: no two have the same, one that ends frees its own; with a made-up nvidia-smi."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import wait_until
from tests.project import ROOT

SMI = "#!/bin/sh\nprintf '0, GPU-aa\\n1, GPU-bb\\n'\n"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of programs: an nvidia-smi that lists two GPUs."""
    (tmp_path / "nvidia-smi").write_text(SMI, encoding="utf-8")
    (tmp_path / "nvidia-smi").chmod(0o755)
    return tmp_path


def job(machine: Path, count: int, script: str, **variables: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    environment |= {"PATH": f"{machine}:/usr/bin:/bin", "TMPDIR": str(machine), "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "mtbert.workflow.gpu", str(count), "sh", "-c", script]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def seen(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=60)[0].strip()


def test_each_job_has_a_gpu_of_its_own_and_the_next_waits_for_one(machine: Path) -> None:
    holding = []
    for name in ("one", "two"):
        holding.append(job(machine, 1, f"echo $CUDA_VISIBLE_DEVICES > {machine}/{name}; exec sleep 60"))
        wait_until(lambda file=machine / name: file.exists() and file.read_text(encoding="utf-8"))
    assert [(machine / name).read_text(encoding="utf-8") for name in ("one", "two")] == ["GPU-aa\n", "GPU-bb\n"]
    third = job(machine, 1, "echo $CUDA_VISIBLE_DEVICES")
    time.sleep(0.5)
    assert third.poll() is None, "both are taken"
    holding[1].kill()
    assert seen(third) == "GPU-bb", "freed by a kill"
    holding[0].kill()
    assert seen(job(machine, 2, "echo $CUDA_VISIBLE_DEVICES")) == "GPU-aa,GPU-bb"
    for process in holding:
        process.communicate()


@pytest.mark.parametrize(("given", "ids"), [("1", "GPU-bb"), ("GPU-bb", "GPU-bb"), ("MIG-cc,0", "MIG-cc")])
def test_only_gpus_that_the_user_or_slurm_left_visible(machine: Path, given: str, ids: str) -> None:
    assert seen(job(machine, 1, "echo $CUDA_VISIBLE_DEVICES", CUDA_VISIBLE_DEVICES=given)) == ids


def test_more_gpus_than_there_are_is_an_error(machine: Path) -> None:
    process = job(machine, 3, "true")
    assert "a stage wants 3 GPUs, but only 2 can be used here; lower its `gpus`" in seen(process)
    assert process.returncode == 1


def test_a_machine_without_a_driver_is_an_error(machine: Path) -> None:
    (machine / "nvidia-smi").unlink()
    process = job(machine, 1, "true")
    assert "error: nvidia-smi fails" in seen(process)
    assert process.returncode == 1


def test_the_command_s_exit_status_is_the_job_s(machine: Path) -> None:
    process = job(machine, 1, "exit 7")
    process.communicate(timeout=60)
    assert process.returncode == 7
