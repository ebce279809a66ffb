"""Runs in an unpacked bundle, on the machine with the GPU: tests, training runs and benchmarks, within a time limit.

A run's results are written when it has been evaluated: metrics, predictions, model card, record and log, without its weights unless
asked for. Training that the limit or a signal ends leaves a checkpoint, from which the same command resumes.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtbert.bundle import CHECKSUM, LOG, MANIFEST, PROJECT, place
from mtbert.bundle.packages import arrange
from mtbert.files import atomic_write_text, replaced_file, replaced_folder, sha256_file
from mtbert.pipeline.paths import CONVERTED, METRICS, MODELS, PLOTS, PREPARED, PRETRAINED, RESULTS

STEPS = ("tests", "train", "benchmarks")
BENCHMARKS = Path("reports/benchmarks")
GRACE = 15.0  # seconds before the limit at which processes are asked to stop


class Waiting:
    """Runs that wait for a process. Once some have finished, a run that would not finish in the time left is passed over for a shorter
    one, since a run that the limit stops brings nothing back.

    Args:
        runs: in their order, with the tokens that each trains on.
    """

    def __init__(self, runs: Mapping[str, int]) -> None:
        self._tokens, self._runs, self._lock = runs, list(runs), threading.Lock()
        self._paces: list[float] = []  # seconds for a token

    def next(self, seconds: float) -> str | None:
        """Take the first run that can finish in `seconds`; None if there is none."""
        with self._lock:
            pace = statistics.median(self._paces) if self._paces else 0.0
            found = next((run for run in self._runs if pace * self._tokens[run] <= seconds), None)
            if found is not None:
                self._runs.remove(found)
            return found

    def took(self, run: str, seconds: float) -> None:
        """Note that a run has finished, from its start, in `seconds`."""
        with self._lock:
            self._paces.append(seconds / max(1, self._tokens[run]))


class Work:
    """Processes that are asked to stop shortly before a time limit, or when this process is, and are killed at the limit.

    Args:
        out: the folder of results.
        seconds: the limit.
    """

    def __init__(self, out: Path, seconds: float) -> None:
        self.out, self.stopping, self.failed = out, threading.Event(), False
        self._end, self._running = time.monotonic() + seconds, set[subprocess.Popen[bytes]]()
        for delay, action in ((max(0.0, seconds - GRACE), self.stop), (max(GRACE, seconds), self._kill)):
            timer = threading.Timer(delay, action)
            timer.daemon = True
            timer.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)

    @property
    def minutes_left(self) -> float:
        return max(0.0, self._end - GRACE - time.monotonic()) / 60

    def stop(self, *_: Any) -> None:
        """Start nothing more, and ask what runs to end: training then writes a checkpoint."""
        self.stopping.set()
        for process in tuple(self._running):
            process.terminate()

    def _kill(self) -> None:
        for process in tuple(self._running):
            process.kill()

    def call(self, name: str, *command: str, folder: Path = PROJECT) -> bool:
        """Run `python -m COMMAND` in `folder` to its end, with its output in logs/NAME.log; whether it succeeded."""
        if self.stopping.is_set():
            return False
        began = time.monotonic()
        written = self.out / "logs" / f"{name}.log"
        written.parent.mkdir(parents=True, exist_ok=True)
        with written.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], stdout=log, stderr=subprocess.STDOUT, cwd=folder
            )
            self._running.add(process)
            if self.stopping.is_set():
                process.terminate()
            status = process.wait()
            self._running.discard(process)
        good, stopped = status == 0, self.stopping.is_set()
        self.failed |= not good and not stopped
        how = "done" if good else "stopped" if stopped else f"failed with status {status}, see logs/{name}.log"
        print(f"{command[0]} {name}: {how} after {time.monotonic() - began:.0f} s", flush=True)
        return good


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for. Exit status 1 if something failed."""
    manifest = json.loads(Path(MANIFEST).read_text(encoding="utf-8"))
    chosen = _parser(manifest).parse_args(arguments)
    _arrange(Path("../site"), Path("../first"))
    out = Path(os.environ.get("OUT", "results")).resolve()
    (out / "logs").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(MANIFEST, out / MANIFEST)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // chosen.jobs)))
    work = Work(out, 60 * chosen.minutes)
    for step in chosen.steps:
        if step == "tests":
            work.call("tests", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider")
        elif step == "train":
            _train(work, manifest, chosen.runs, chosen.jobs, chosen.weights)
        else:
            work.call("benchmarks", "benchmarks.gpu", "--minutes", f"{work.minutes_left:.2f}")
            if BENCHMARKS.is_dir():
                shutil.copytree(BENCHMARKS, out / "benchmarks", dirs_exist_ok=True)
    print(f"results: {out}", flush=True)
    return int(work.failed)


def _arrange(site: Path, first: Path) -> None:
    """Choose between the machine's packages and the bundle's, once."""
    if first.exists():
        return
    file = Path("pyproject.toml")
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"] if file.is_file() else {}
    machine = [folder for folder in sys.path if Path(folder).resolve() != site.resolve()]
    with replaced_folder(first) as folder:
        if names := arrange(site, folder, project.get("dependencies", ()), machine):
            print(f"the bundle's own, since this machine's are too old or too new: {', '.join(names)}", flush=True)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _parser(manifest: dict[str, Any]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "bash run.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "steps", nargs="+", metavar="STEP", choices=STEPS, help=f"{', '.join(STEPS)}; done in the order given"
    )
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="the limit of all steps together")
    parser.add_argument("--jobs", type=_positive, default=1, help="training runs at once")
    parser.add_argument(
        "--runs",
        nargs="+",
        choices=manifest["runs"],
        default=list(manifest["runs"]),
        metavar="RUN",
        help="by default all of the bundle",
    )
    parser.add_argument("--weights", action="store_true", help="bring the trained weights back too")
    return parser


def _train(work: Work, manifest: dict[str, Any], runs: Sequence[str], jobs: int, weights: bool) -> None:
    """Train and evaluate runs, several at once; a run that is finished is only packed again."""
    if manifest["fp16"]:
        _restore_weights()
    for folder in dict.fromkeys(place(run)[0] for run in runs):
        _give_inputs(folder)
    waiting = Waiting({run: manifest["runs"][run] for run in runs})
    finished: list[str] = []

    def worker() -> None:
        while not work.stopping.is_set() and (run := waiting.next(60 * work.minutes_left)):
            folder, name = place(run)
            try:
                stages, began = _stages(run), time.monotonic()
                if all(work.call(run, f"stages.{stage}", name, folder=folder) for stage in stages):
                    if "train" in stages:
                        waiting.took(run, time.monotonic() - began)
                    bring_back(work.out, run, weights)
                    finished.append(run)
            except OSError as error:  # a full disk, or no memory for a process; it would end this thread alone
                work.failed = True
                print(
                    f"{run}: cannot be started, or its log or results cannot be written ({error}); remove the cause, "
                    "then the same command tries again",
                    flush=True,
                )

    threads = [threading.Thread(target=worker) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = [run for run in runs if run not in finished]
    print(f"runs finished: {len(finished)} of {len(runs)}" + (f"; not: {', '.join(left)}" if left else ""), flush=True)


def _stages(run: str) -> list[str]:
    """What is still to be done for a run. A stage that was killed may have written all but its last file."""
    folder, name = place(run)
    last = {
        "convert": (folder / CONVERTED / name,),
        "train": (folder / MODELS / name, folder / LOG.format(run=name)),
        "evaluate": (folder / METRICS / f"{name}.json",),
    }
    return [stage for stage, written in last.items() if not all(path.exists() for path in written)]


def _give_inputs(folder: Path) -> None:
    """Put the project's prepared data and encoder into a study's folder, as links to the same files."""
    for path in (PREPARED, PRETRAINED):
        if not (folder / path).exists():
            with replaced_folder(folder / path) as fresh:
                shutil.copytree(path, fresh, copy_function=os.link, dirs_exist_ok=True)


def _restore_weights() -> None:
    """Write the rounded encoder as fp32, once."""
    from mtbert.pretrained.store import CONFIG, WEIGHTS, read_safetensors, save_model

    config = json.loads((PRETRAINED / CONFIG).read_text(encoding="utf-8"))
    if "rounded" in config["source"]:
        return
    tensors = {name: tensor.float() for name, tensor in read_safetensors(PRETRAINED / WEIGHTS).items()}
    kept = {key: config[key] for key in ("encoder", "masked_head") if key in config}
    save_model(PRETRAINED, tensors, {**kept, "source": {**config["source"], "rounded": "fp16"}})


def bring_back(out: Path, run: str, weights: bool) -> None:
    """Write OUT/runs/RUN.tar.gz, and its sha256 beside it. Of a study it also has the converted model, as the study's graph does."""
    folder, name = place(run)

    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        heavy = entry.name.startswith(f"{MODELS}/") and entry.name.endswith(("/model.safetensors", "/tokenizer.json"))
        return None if heavy and not weights else entry

    paths = [
        *(() if folder == PROJECT else (CONVERTED / name,)),
        MODELS / name,
        RESULTS / name,
        PLOTS / f"{name}.csv",
        METRICS / f"{name}.json",
        Path(LOG.format(run=name)),
    ]
    archive = out / "runs" / f"{run}.tar.gz"
    with replaced_file(archive) as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
        for path in paths:
            tar.add(folder / path, path.as_posix(), filter=kept)
    atomic_write_text(archive.with_name(archive.name + CHECKSUM), f"{sha256_file(archive)}  {archive.name}\n")


if __name__ == "__main__":
    sys.exit(main())
