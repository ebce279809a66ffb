"""Waiting for processes that a test started, finding those that they left, and a reader that ends before its writer."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil


def wait_until(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait for a condition, and fail if it does not come true in this time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds:g} seconds"
        time.sleep(0.005)


def at_work(project: Path, word: str = "") -> list[psutil.Process]:
    """The processes whose working directory is this project, and whose command has this word."""
    return [
        process
        for process in psutil.process_iter(["cwd", "cmdline"])
        if process.info["cwd"] == str(project) and (not word or word in process.info["cmdline"])
    ]


def unread(project: Path, *arguments: str, code: Path) -> tuple[int, bytes]:
    """Run `python -m ...` in a project with this code, its output a pipe that nobody reads; exit status and errors."""
    reader, writer = os.pipe()
    os.close(reader)
    command, environment = [sys.executable, "-m", *arguments], {**os.environ, "PYTHONPATH": str(code)}
    done = subprocess.run(command, cwd=project, env=environment, stdout=writer, stderr=subprocess.PIPE, timeout=300)
    os.close(writer)
    return done.returncode, done.stderr
