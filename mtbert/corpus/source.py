"""Where the raw files come from, by data.source: a generated sample, a folder or a download. No source falls back on another.

Each source fills a folder with {task}-{split}.csv and source.json, which records where every file came from. The files of declared
tasks are copied from data.path in any case.
"""

import csv
import hashlib
import io
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from mtbert.corpus.lines import check_is_file
from mtbert.errors import MtbertError
from mtbert.files import atomic_json, replaced_folder
from mtbert.sample.generate import SampleRow, generate
from mtbert.seal import seal
from mtbert.tasks.paper import TASKS
from mtbert.tasks.task import SPLITS, Task, raw_name

REPOSITORY = "gpoesia/minbert-default-final-project"
COMMIT = "7ac8260577fc12a86c7aaf38918056c30054ef39"
URL = f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}/data/"
TIMEOUT_SECONDS = 30
COURSE = Path("data/course")  # the user's copies, unless data.path names another folder
BY_HAND = f"copy the course's files into {COURSE} and set data.source: folder"

GIT_BLOBS = {
    "ids-sst-train.csv": "9cb7333cb1dae49c2bd2a4b56a24882a6e8704b5",
    "ids-sst-dev.csv": "3171aa629a340809d2db4a50df8f6e5ec9420ab0",
    "ids-sst-test-student.csv": "bbd2313758825f86e24416d6aad64cd93370cf7a",
    "quora-train.csv": "a3b5546f6a0e65b60a328a5d294d1038f5bed1da",
    "quora-dev.csv": "de7cfa32428fd470b93f778fccc45a619e01336f",
    "quora-test-student.csv": "f257ef00558555afb50819578a58205732b16354",
    "sts-train.csv": "12b17760e7795fee35aeeabc290d5651de02622a",
    "sts-dev.csv": "9392860e584717976b8d817cc40c9e6ceeec27e0",
    "sts-test-student.csv": "25f0cf8fafdd1f82b9e2bb460c708af34341ce60",
}
"""Git blob ids of the published files at COMMIT (winter release, 141k Quora pairs)."""


Files = dict[str, tuple[bytes, dict[str, Any]]]  # name in the raw folder -> content, and its entry in source.json


def write_sample(
    folder: Path,
    seed: int,
    sizes: Mapping[str, Mapping[str, int]],
    label_noise: float,
    declared: Files | None = None,
) -> None:
    """Replace `folder` by `declared` and generated files (`mtbert.sample.generate.generate`), whose test splits are labelled."""
    rows = generate(seed, sizes, label_noise)
    record = {
        "source": "sample",
        "seed": seed,
        "label_noise": label_noise,
        "sizes": {task: {split: sizes[task][split] for split in SPLITS} for task in TASKS},
    }
    files: Files = {
        raw_name(TASKS[task], split): (_course_format(TASKS[task], part), {}) for (task, split), part in rows.items()
    }
    _write(folder, record, files, declared)


def declared_files(source_folder: Path, tasks: Iterable[Task]) -> Files:
    """The files in `source_folder` of those `tasks` that params.yaml declares: NAME-train.csv, NAME-dev.csv, optionally NAME-test.csv.

    Raises:
        MtbertError: names every train and dev file that is missing, or the one that cannot be read.
    """
    files: Files = {}
    missing: list[str] = []
    for task in tasks:
        for split in SPLITS if task.course is None else ():
            path = source_folder / task.file(split)
            data = _read(path)
            if data is not None:
                files[raw_name(task, split)] = data, {"from": str(path), "declared": True}
            elif split != "test":
                missing.append(path.name)
    if missing:
        raise MtbertError(
            f"{source_folder}: missing {', '.join(missing)}; put the files of the tasks that params.yaml declares there, or name "
            "their folder as data.path"
        )
    return files


def copy_course(source_folder: Path, folder: Path, declared: Files | None = None) -> None:
    """Replace `folder` by `declared` and the course's files in `source_folder` (`~` is the home folder), byte for byte.

    The unlabelled test files are optional (only leaderboard predictions need them); source.json lists the absent ones.
    The files may differ from the published ones; source.json records which do.

    Raises:
        MtbertError: names every train and dev file that is missing, or the one that cannot be read.
    """
    files: Files = {}
    absent: list[str] = []
    missing: list[str] = []
    for task, split, name in _published():
        data = _read(source_folder / name)
        if data is None:
            (absent if split == "test" else missing).append(name)
        else:
            files[raw_name(task, split)] = data, {"from": str(source_folder / name), **_pin(name, data)}
    if missing:
        tracked = f" and run `dvc add {COURSE}/*.csv`" if source_folder == COURSE else ""
        remedy = f"copy the course's files into {source_folder}{tracked}, or name their folder"
        raise MtbertError(
            f"{source_folder}: missing {', '.join(missing)}; {remedy}: make reproduce PROFILE=course DATA=FOLDER"
        )
    _write(folder, {"source": "folder", "path": str(source_folder), "absent": absent}, files, declared)


def _read(path: Path) -> bytes | None:
    """The file's bytes, or None if there is no file."""
    try:
        file = path.expanduser()
        check_is_file(file, "put the CSV file there")
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError, RuntimeError):  # RuntimeError: `~nobody`
        return None
    except OSError as error:
        raise MtbertError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def download_course(folder: Path, declared: Files | None = None) -> None:
    """Replace `folder` by `declared` and the course's published files, each verified by its git blob id.

    Raises:
        MtbertError: a download fails, or a file is not the pinned one; `folder` is then unchanged.
    """
    files: Files = {}
    for task, split, name in _published():
        data = _download(URL + name)
        pin = _pin(name, data)
        if not pin["is_pinned"]:
            what = f"{len(data)} bytes with git blob id {pin['git_blob']}, expected {GIT_BLOBS[name]}"
            raise MtbertError(f"{URL}{name}: downloaded {what}; try again, or {BY_HAND}")
        files[raw_name(task, split)] = data, {"from": URL + name, **pin}
    record: dict[str, Any] = {"source": "download", "repository": REPOSITORY, "commit": COMMIT, "absent": []}
    _write(folder, record, files, declared)


def git_blob_id(data: bytes) -> str:
    """Git's id of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _published() -> list[tuple[Task, str, str]]:
    return [(task, split, task.file(split)) for task in TASKS.values() for split in SPLITS]


def _pin(name: str, data: bytes) -> dict[str, Any]:
    blob = git_blob_id(data)
    return {"published_as": name, "git_blob": blob, "is_pinned": blob == GIT_BLOBS[name]}


def _download(url: str) -> bytes:
    remedy = f"check the network, or {BY_HAND}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            data: bytes = response.read()
    except urllib.error.HTTPError as error:
        raise MtbertError(f"{url}: the server answered {error.code} {error.reason}; {remedy}") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise MtbertError(f"{url}: cannot be downloaded ({reason}); {remedy}") from None
    return data


def _course_format(task: Task, rows: list[SampleRow]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(["", "id", *task.texts, task.label])
    writer.writerows([number, row.id, *row.texts, row.label] for number, row in enumerate(rows))
    return text.getvalue().encode("utf-8")


def _write(folder: Path, record: dict[str, Any], files: Files, declared: Files | None) -> None:
    files = files | (declared or {})
    with replaced_folder(folder) as fresh:
        for name, (data, _) in files.items():
            (fresh / name).write_bytes(data)
        listed = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), **more}
            for name, (data, more) in files.items()
        }
        atomic_json(fresh / "source.json", {**record, "files": listed})
        seal(fresh)
