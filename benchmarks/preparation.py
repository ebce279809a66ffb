"""prepare on as many generated pairs as Quora has, against `datasets.map` with the same tokenizer; time and memory."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.harness import Target, publish, ratio
from mtbert.data.tasks import SPLITS, TASKS, raw_name

PAIRS = 404_290


def main(
    pairs: int = PAIRS,
    rounds: int = 3,
    only: Annotated[str, typer.Option(help="one side, once, on the files in FOLDER; for this command's own use")] = "",
    folder: Path = Path(),
) -> None:
    """Rows per second from CSV to arrays, a fresh process each time."""
    if only:
        began = time.perf_counter()
        {"mtbert": _ours, "datasets.map": _datasets}[only](folder)
        seconds = time.perf_counter() - began
        own, workers = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(json.dumps({"seconds": seconds, "bytes": 1024 * max(own, workers)}))
        return
    rates: dict[str, list[float]] = {"mtbert": [], "datasets.map": []}
    peaks: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as place:
        _generate(Path(place), pairs)
        for number in range(rounds):
            for name in sorted(rates, reverse=bool(number % 2)):
                command = [sys.executable, "-m", "benchmarks.preparation", "--only", name, "--folder", place]
                told = json.loads(
                    subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
                )
                rates[name].append(pairs / told["seconds"])
                peaks[name] = max(peaks.get(name, 0), told["bytes"])
    seconds = pairs / sorted(rates["mtbert"])[len(rates["mtbert"]) // 2]
    targets = [
        Target(f"seconds for {pairs:,} pairs", seconds, 20.0, True),
        Target("times datasets.map", ratio(rates, "mtbert", "datasets.map"), 3.0),
    ]
    publish("preparation", "rows/s", rates, ours="mtbert", targets=targets, peak_bytes=peaks)


def _generate(place: Path, pairs: int) -> None:
    from mtbert.data.source import write_sample

    sizes = {task: dict.fromkeys(SPLITS, 8) for task in TASKS}
    sizes["quora"]["train"] = pairs
    write_sample(place / "raw", seed=1, sizes=sizes, label_noise=0.0)


def _tokenizer() -> Path:
    from benchmarks import peers

    return peers.minilm_folder() / "tokenizer.json"


def _ours(place: Path) -> None:
    from mtbert.data.prepare import prepare

    prepare(place / "raw", place / "prepared", _tokenizer(), "error", "keep", "course", 256)


def _datasets(place: Path) -> None:
    from datasets import load_dataset
    from transformers import AutoTokenizer

    from benchmarks import peers

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


if __name__ == "__main__":
    typer.run(main)
