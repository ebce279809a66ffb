"""The raw folder is generated, copied or downloaded, completely or not at all."""

import errno
import hashlib
import io
import json
import os
import subprocess
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from mtbert.corpus import source
from mtbert.corpus.read import has_labels
from mtbert.errors import MtbertError
from mtbert.sample.generate import generate
from mtbert.tasks.paper import TASKS
from mtbert.tasks.task import SPLITS
from tests.corpus.whole import read_split

SIZES = {task: {"train": 12, "dev": 9, "test": 8} for task in TASKS}


def course_folder(folder: Path) -> dict[str, bytes]:
    """Files under the course's names, with content of our own."""
    folder.mkdir()
    files = {name: f"content of {name}\r\n".encode() for name in source.GIT_BLOBS}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return files


def test_sample_is_written_in_the_course_format_and_labelled(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    source.write_sample(folder, 11711, SIZES, 0.1)
    rows = generate(11711, SIZES, 0.1)
    for task in TASKS.values():
        for split in SPLITS:
            path = folder / f"{task.name}-{split}.csv"
            assert has_labels(path, task)
            examples, _ = read_split(path, task, True, "error")
            assert [(e.id, e.sentence1, e.sentence2) for e in examples] == [
                (row.id, row.texts[0], row.texts[1] if task.is_pair else None) for row in rows[task.name, split]
            ]
            assert [e.label for e in examples] == [float(row.label) for row in rows[task.name, split]]
    record = json.loads((folder / "source.json").read_text())
    assert {key: record[key] for key in ("source", "seed", "label_noise", "sizes")} == {
        "source": "sample",
        "seed": 11711,
        "label_noise": 0.1,
        "sizes": SIZES,
    }
    assert len(record["files"]) == 9
    for name, file in record["files"].items():
        data = (folder / name).read_bytes()
        assert file == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def test_copies_are_byte_for_byte_and_recorded_as_pinned_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = course_folder(tmp_path / "course")
    monkeypatch.setitem(source.GIT_BLOBS, "sts-dev.csv", source.git_blob_id(files["sts-dev.csv"]))
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "stale.csv").write_text("old")
    source.copy_course(tmp_path / "course", folder)
    record = json.loads((folder / "source.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == sorted([*record["files"], "source.json", "sha256.json"])
    assert (folder / "sst-test.csv").read_bytes() == files["ids-sst-test-student.csv"]
    assert record["absent"] == []
    assert {name for name, file in record["files"].items() if file["is_pinned"]} == {"sts-dev.csv"}
    assert record["files"]["sst-test.csv"]["published_as"] == "ids-sst-test-student.csv"
    assert record["files"]["sst-test.csv"]["from"] == f"{tmp_path}/course/ids-sst-test-student.csv"
    assert (record["source"], record["path"]) == ("folder", f"{tmp_path}/course")


def test_every_missing_train_and_dev_file_is_named_and_test_files_are_optional(tmp_path: Path) -> None:
    course = tmp_path / "course"
    course_folder(course)
    (course / "quora-test-student.csv").unlink()
    source.copy_course(course, tmp_path / "raw")
    assert json.loads((tmp_path / "raw" / "source.json").read_text())["absent"] == ["quora-test-student.csv"]
    (course / "ids-sst-dev.csv").unlink()
    (course / "sts-train.csv").unlink()
    with pytest.raises(MtbertError) as error:
        source.copy_course(course, tmp_path / "other")
    assert str(error.value) == (
        f"{course}: missing ids-sst-dev.csv, sts-train.csv; copy the course's files into {course}, "
        "or name their folder: make reproduce PROFILE=course DATA=FOLDER"
    )
    assert not (tmp_path / "other").exists()


def test_nothing_is_downloaded_instead_of_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("asked the network"))
    with pytest.raises(MtbertError) as error:
        source.copy_course(Path("data/course"), tmp_path / "raw")
    assert str(error.value) == (
        "data/course: missing ids-sst-train.csv, ids-sst-dev.csv, quora-train.csv, quora-dev.csv, sts-train.csv, sts-dev.csv; "
        "copy the course's files into data/course and run `dvc add data/course/*.csv`, "
        "or name their folder: make reproduce PROFILE=course DATA=FOLDER"
    )


def test_a_home_folder_is_found_and_named_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course_folder(tmp_path / "course")
    monkeypatch.setenv("HOME", str(tmp_path))
    source.copy_course(Path("~/course"), tmp_path / "raw")
    record = json.loads((tmp_path / "raw" / "source.json").read_text())
    assert (record["path"], record["files"]["sst-dev.csv"]["from"]) == ("~/course", "~/course/ids-sst-dev.csv")
    with pytest.raises(MtbertError, match=r"~nobody-of-that-name: missing ids-sst-train.csv"):
        source.copy_course(Path("~nobody-of-that-name"), tmp_path / "raw")


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(("make", "what"), [(os.mkfifo, "a FIFO"), (a_device, "a device"), (Path.mkdir, "a folder")])
@pytest.mark.parametrize("name", ["quora-dev.csv", "sts-test-student.csv"])
def test_anything_but_a_file_is_refused_at_once(tmp_path: Path, make: Any, what: str, name: str) -> None:
    course = tmp_path / "course"
    course_folder(course)
    (course / name).unlink()
    make(course / name)
    with pytest.raises(MtbertError) as error:
        source.copy_course(course, tmp_path / "raw")
    assert str(error.value) == f"{course / name}: {what} instead of a file; put the CSV file there"


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course_folder(tmp_path / "course")

    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(MtbertError, match=r"ids-sst-train.csv: cannot be read \(Permission denied\); check its perm"):
        source.copy_course(tmp_path / "course", tmp_path / "raw")


def test_blob_id_is_gits(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"some\r\ncontent\0")
    git = subprocess.run(["git", "hash-object", "--no-filters", path], capture_output=True, text=True, check=True)
    assert source.git_blob_id(path.read_bytes()) == git.stdout.strip()


def test_download_takes_the_pinned_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = course_folder(tmp_path / "course")
    monkeypatch.setattr(source, "GIT_BLOBS", {name: source.git_blob_id(data) for name, data in files.items()})
    asked = []

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        assert timeout > 0
        return io.BytesIO(files[url.rpartition("/")[2]])

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    source.download_course(tmp_path / "raw")
    assert asked[0] == (
        "https://raw.githubusercontent.com/gpoesia/minbert-default-final-project/"
        "7ac8260577fc12a86c7aaf38918056c30054ef39/data/ids-sst-train.csv"
    )
    assert len(asked) == 9
    record = json.loads((tmp_path / "raw" / "source.json").read_text())
    assert (record["source"], record["commit"]) == ("download", source.COMMIT)
    assert record["files"]["sst-train.csv"]["from"] == asked[0]
    assert all(file["is_pinned"] for file in record["files"].values())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            urllib.error.URLError("no route to host"),
            "cannot be downloaded (no route to host); check the network, or copy the course",
        ),
        (TimeoutError("timed out"), "cannot be downloaded (timed out); check the network, or copy the course"),
        (
            urllib.error.HTTPError("u", 404, "Not Found", {}, None),
            "the server answered 404 Not Found; check the network",
        ),  # type: ignore[arg-type]
        (b"something else", "downloaded 14 bytes with git blob id "),
    ],
)
def test_a_failed_download_says_what_to_do_and_leaves_the_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, message: str
) -> None:
    def urlopen(url: str, timeout: float) -> io.BytesIO:
        if isinstance(answer, Exception):
            raise answer
        return io.BytesIO(answer)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "kept.csv").write_text("as it was")
    with pytest.raises(MtbertError) as error:
        source.download_course(folder)
    assert f"/data/ids-sst-train.csv: {message}" in str(error.value)
    assert str(error.value).endswith(", or copy the course's files into data/course and set data.source: folder")
    assert [path.name for path in folder.iterdir()] == ["kept.csv"]
