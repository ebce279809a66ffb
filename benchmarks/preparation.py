"""prepare on as many generated pairs as Quora has, against `datasets.map` with the same tokenizer; time and memory."""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.harness import Target, publish, ratio
from benchmarks.memory import memory
from mtbert.tasks.paper import TASKS
from mtbert.tasks.task import SPLITS, raw_name

PAIRS = 404_290


def main(
    pairs: int = PAIRS,
    rounds: int = 3,
    only: Annotated[str, typer.Option(help="internal: one side, once, on the files in FOLDER")] = "",
    folder: Path = Path(),
) -> None:
    """Rows per second from CSV to arrays; each measurement is a new process, timed after its imports."""
    if only:
        work = {"mtbert": _ours, "datasets.map": _datasets}[only]()
        imports = memory("VmHWM")
        began = time.perf_counter()
        work(folder)
        seconds = time.perf_counter() - began
        workers = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(json.dumps({"seconds": seconds, "bytes": max(memory("VmHWM"), workers), "imports": imports}))
        return
    rates: dict[str, list[float]] = {"mtbert": [], "datasets.map": []}
    peaks: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as small_place:
        few = pairs // 4
        _generate(Path(small_place), few)
        small = _run("mtbert", small_place)
        _generate(Path(place), pairs)
        for number in range(rounds):
            for name in sorted(rates, reverse=bool(number % 2)):
                measured = _run(name, place)
                rates[name].append(pairs / measured["seconds"])
                peaks[name] = max(peaks.get(name, 0), measured["bytes"])
    seconds = pairs / statistics.median_high(rates["mtbert"])
    targets = [
        Target(f"seconds for {pairs:,} pairs", seconds, 20.0, True),
        Target("times datasets.map", ratio(rates, "mtbert", "datasets.map"), 3.0),
        Target("MB at the peak beyond the imports", (peaks["mtbert"] - small["imports"]) / 1e6, 100.0, True),
        Target(
            f"bytes of memory for each pair beyond {few:,}",
            (peaks["mtbert"] - small["bytes"]) / (pairs - few),
            128.0,
            True,
        ),
    ]
    ours = {"imports": small["imports"], f"{few} pairs": small["bytes"], f"{pairs} pairs": peaks["mtbert"]}
    publish("preparation", "rows/s", rates, ours="mtbert", targets=targets, peak_bytes=peaks, mtbert_bytes=ours)


def _run(name: str, place: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.preparation", "--only", name, "--folder", place]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _generate(place: Path, pairs: int) -> None:
    from mtbert.corpus.source import write_sample

    sizes = {task: dict.fromkeys(SPLITS, 8) for task in TASKS}
    sizes["quora"]["train"] = pairs
    write_sample(place / "raw", seed=1, sizes=sizes, label_noise=0.0)


def _ours() -> Callable[[Path], object]:
    from benchmarks import peers
    from mtbert.corpus.prepare import prepare

    tokenizer = peers.minilm_folder() / "tokenizer.json"
    return lambda place: prepare(place / "raw", place / "prepared", tokenizer, "error", "keep", "course", 256)


def _datasets() -> Callable[[Path], object]:
    from datasets import load_dataset
    from transformers import AutoTokenizer

    from benchmarks import peers

    def work(place: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(peers.minilm_folder())
        file = str(place / "raw" / raw_name(TASKS["quora"], "train"))
        with tempfile.TemporaryDirectory() as cache:
            rows = load_dataset("csv", data_files=file, delimiter="\t", cache_dir=cache, split="train")
            rows.map(
                lambda batch: {
                    f"ids{n}": tokenizer(batch[f"sentence{n}"], add_special_tokens=False)["input_ids"] for n in (1, 2)
                },
                batched=True,
                num_proc=2,
            )

    return work


if __name__ == "__main__":
    typer.run(main)
