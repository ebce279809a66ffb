"""Turns raw files into arrays: read, report malformed rows, clean, tokenise."""

import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Literal, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from mtbert.corpus.counts import Counts, Leaks
from mtbert.corpus.origins import Origin, origin_of
from mtbert.corpus.read import has_labels, place_of, read_blocks
from mtbert.corpus.repeats import Keys, sentences_keys
from mtbert.corpus.rows import BadRow, RowBlock
from mtbert.corpus.tokenizer import largest_id, read_tokenizer
from mtbert.corpus.wordpieces import Wordpieces
from mtbert.corpus.writing import SplitWriter
from mtbert.errors import MtbertError
from mtbert.files import atomic_json, replaced_folder, sha256_file
from mtbert.seal import check_seal, seal
from mtbert.tasks.paper import TASKS
from mtbert.tasks.task import SPLITS, Task, raw_name

WIDTH = 10  # of a column in the summary
LARGEST_VOCABULARY = 65536  # ids are stored as uint16

Pieces = list[tuple[np.ndarray, np.ndarray]]  # for first and second sentences: ids end to end, and their number per row


def prepare(
    raw_folder: Path,
    out_folder: Path,
    tokenizer_file: Path,
    on_bad_row: Literal["error", "drop"],
    leakage: Literal["keep", "drop"],
    preprocess: Literal["course", "none"],
    max_tokens: int,
    known: Mapping[str, Task] = TASKS,
) -> dict[str, Any]:
    """Replace `out_folder` by {split}/{task}/ arrays and examples, tokenizer.json and report.json.

    Each split has its own checksums, so that what reads train and dev does not depend on test. A task without a test file has no
    test/{task}. Sentences longer than `max_tokens` are counted, not cut.

    Args:
        raw_folder: holds {task}-{split}.csv, and source.json, which gives the name of the original file for error messages.
        tokenizer_file: a `tokenizers` file; its truncation and padding are switched off.
        on_bad_row: stop at the first malformed row, or leave malformed rows out and list them.
        leakage: drop removes rows from train that are also in dev or test.
        preprocess: see `clean`.
        max_tokens: longest sequence, special tokens included.
        known: the tasks to prepare; by default the paper's.

    Returns:
        The content of report.json; "warnings" are sentences for the user.

    Raises:
        MtbertError: as `read_blocks`; or a raw file has changed since `fetch` wrote it, the tokenizer is unusable, a sentence
            has no wordpieces, or a split has no rows.
    """
    check_seal(raw_folder)
    tokenizer = _tokenizer(tokenizer_file)
    wordpieces = Wordpieces(tokenizer)
    settings = _Settings(on_bad_row, leakage, preprocess, max_tokens)
    tasks: dict[str, Any] = {}
    with replaced_folder(out_folder) as fresh:
        for split in SPLITS:
            (fresh / split).mkdir()
        for task in known.values():
            tasks[task.name] = _prepare_task(task, raw_folder, fresh, wordpieces, settings)
        shutil.copyfile(tokenizer_file, fresh / "tokenizer.json")
        report = {
            "settings": settings._asdict(),
            "tokenizer": {"sha256": sha256_file(tokenizer_file), "vocabulary": tokenizer.get_vocab_size()},
            "tasks": tasks,
            "warnings": _warnings(raw_folder, known.values(), tasks, tokenizer_file, tokenizer, preprocess),
        }
        atomic_json(fresh / "report.json", report)
        seal(fresh, "tokenizer.json", "report.json")
        for split in SPLITS:
            seal(fresh / split)
    return report


def clean(text: str, task: Task, preprocess: Literal["course", "none"]) -> str:
    """The sentence before tokenisation.

    Under `course`, as in the course's starter code: sentences of pairs are lower-cased, get a space before each `. ? , '`, and
    runs of white space become one space; single sentences are lower-cased and stripped. Under `none`, unchanged.
    """
    if preprocess == "none":
        return text
    text = text.lower()
    if not task.is_pair:
        return text.strip()
    for mark in ".?,'":
        text = text.replace(mark, f" {mark}")
    return " ".join(text.split())


def summary(report: dict[str, Any]) -> str:
    """The report as plain text: a line per split, then notes on rows left out."""
    heads = ("rows", "kept", "bad", "repeated", "leaked", "too long", "wordpieces")
    name_width = max(6, *map(len, report["tasks"]))
    lines = [f"{'task':<{name_width}} {'split':<5} " + " ".join(f"{head:>{WIDTH}}" for head in heads)]
    notes = []
    for task, splits in report["tasks"].items():
        for split, found in splits.items():
            if not found["present"]:
                notes.append(f"{task} {split}: no file, so no predictions for it")
                continue
            leaks = found.get("leaked", {})
            numbers = (
                *(found["rows_read"], found["rows_kept"], found["bad_rows"]["count"], found["repeated"]["sentences"]),
                *(leaks.get("rows", "-"), found["over_long"]["sequences"], found["wordpieces"]["total"]),
            )
            lines.append(f"{task:<{name_width}} {split:<5} " + " ".join(f"{number:>{WIDTH}}" for number in numbers))
            listed = found["bad_rows"]["listed"]
            notes += [f"left out {row['where']}: {row['what']}" for row in listed[:5]]
            if found["bad_rows"]["count"] > 5:
                notes.append(f"left out {found['bad_rows']['count'] - 5} more rows of {task} {split}, see report.json")
            if leaks.get("rows"):
                done = "removed from train" if leaks["removed"] else "kept (prepare.leakage: drop removes them)"
                where = " and ".join(f"{other} ({leaks[other]})" for other in ("dev", "test") if leaks.get(other))
                notes.append(f"{task}: {leaks['rows']} train rows are also in {where}; {done}")
    return "\n".join(lines + notes)


def _warnings(
    raw_folder: Path,
    known: Iterable[Task],
    tasks: dict[str, Any],
    tokenizer_file: Path,
    tokenizer: Tokenizer,
    preprocess: Literal["course", "none"],
) -> list[str]:
    """Warnings about what is allowed but seldom intended."""
    warnings = []
    for task in known:
        train = tasks[task.name]["train"]
        if task.kind == "score" and train["largest_label"] <= 1 < task.high:
            warnings.append(
                f"{origin_of(raw_folder / raw_name(task, 'train')).name}: all {train['rows_kept']} {task.label} labels are at "
                f"most 1, but the range is {task.low:g} to {task.high:g}; they are used unchanged, so predictions will be "
                "at most 1 too, and with objective: cosine_embedding no label may reach the threshold; if they were divided by "
                f"{task.high:g}, multiply them by it"
            )
    if preprocess == "course" and _is_cased(tokenizer):
        warnings.append(
            f"{tokenizer_file}: the tokenizer is cased, but prepare.preprocess: course lower-cases "
            "every sentence, so the encoder never sees a capital; set prepare.preprocess: none, or choose an uncased encoder"
        )
    return warnings


def _is_cased(tokenizer: Tokenizer) -> bool:
    upper, lower = (tokenizer.encode(" ".join(letters)).ids for letters in (ascii_uppercase, ascii_lowercase))
    return bool(upper != lower)


def _tokenizer(path: Path) -> Tokenizer:
    tokenizer = read_tokenizer(path, "run `dvc repro encoder`", "run `dvc repro --force --single-item encoder`")
    largest = largest_id(tokenizer)
    if largest >= LARGEST_VOCABULARY:
        remedy = f"choose an encoder of at most {LARGEST_VOCABULARY} wordpieces"
        raise MtbertError(f"{path}: token id {largest} does not fit into 16 bits; {remedy}")
    return tokenizer


class _Settings(NamedTuple):
    on_bad_row: Literal["error", "drop"]
    leakage: Literal["keep", "drop"]
    preprocess: Literal["course", "none"]
    max_tokens: int


def _prepare_task(
    task: Task, raw_folder: Path, out_folder: Path, wordpieces: Wordpieces, settings: _Settings
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    held_out: dict[str, Keys] = {}
    with ExitStack() as stack:
        # Dev and test come first, since train is compared with them.
        for split in reversed(SPLITS):
            path = raw_folder / raw_name(task, split)
            if split == "test" and not path.exists():
                found[split] = {"present": False}
                continue
            folder = out_folder / split / task.name
            folder.mkdir()
            keys = stack.enter_context(closing(Keys(folder)))
            leaks = Leaks(held_out) if split == "train" else None
            found[split] = _prepare_split(path, folder, task, split, keys, leaks, wordpieces, settings)
            held_out[split] = keys
    return {split: found[split] for split in SPLITS}


def _prepare_split(
    path: Path,
    folder: Path,
    task: Task,
    split: str,
    keys: Keys,
    leaks: Leaks | None,
    wordpieces: Wordpieces,
    settings: _Settings,
) -> dict[str, Any]:
    origin = origin_of(path)
    labelled = has_labels(path, task, origin) if split == "test" else True
    counts = Counts(task, settings.max_tokens)
    with SplitWriter(folder, task, labelled) as writer:
        for rows, bad in read_blocks(path, task, labelled, settings.on_bad_row, origin):
            counts.read(rows, bad)
            if not rows or (settings.on_bad_row == "error" and counts.bad):
                continue  # under `error`, malformed rows are reported before sentences without wordpieces
            rows, pieces, tokenless = _tokenise(path, origin, task, rows, wordpieces, settings.preprocess)
            counts.leave_out(tokenless)
            rows_keys = sentences_keys(rows.sides)
            keys.add(rows_keys, rows.labels)
            if leaks is not None:
                leaked = leaks.find(rows, rows_keys)
                if settings.leakage == "drop" and leaked:
                    rows, pieces = _kept(rows, pieces, np.setdiff1d(np.arange(len(rows.ids)), leaked).tolist())
            counts.keep(rows, [lengths for _, lengths in pieces])
            writer.write(rows, pieces)
    if settings.on_bad_row == "error" and counts.bad:
        raise MtbertError(str(counts.listed[0]))
    if not counts.kept:
        raise MtbertError(
            f"{origin.name}: none of its {counts.rows} rows is left; check prepare.on_bad_row and prepare.leakage"
        )
    keys.close_up()
    return {
        "present": True,
        "labelled": labelled,
        "rows_read": counts.rows,
        **({"leaked": leaks.summed(settings.leakage == "drop")} if leaks else {}),
        **counts.summed(labelled, keys.repeated()),
    }


def _tokenise(
    path: Path,
    origin: Origin,
    task: Task,
    rows: RowBlock,
    wordpieces: Wordpieces,
    preprocess: Literal["course", "none"],
) -> tuple[RowBlock, Pieces, list[BadRow]]:
    """The rows with wordpieces in every sentence, their wordpieces, and the rows left out."""
    pieces = [wordpieces.of(side, partial(clean, task=task, preprocess=preprocess)) for side in rows.sides]
    empty = np.array([lengths == 0 for _, lengths in pieces])
    if not empty.any():
        return rows, pieces, []
    bad = []
    for n in np.flatnonzero(empty.any(axis=0)).tolist():
        sentence = int(np.argmax(empty[:, n])) + 1
        what = f"{task.texts[sentence - 1]} has no wordpiece (it has only characters that the tokenizer drops)"
        bad.append(BadRow(origin.name, *place_of(path, task, rows.lines[n], sentence), what, origin.fix_row))
    return *_kept(rows, pieces, np.flatnonzero(~empty.any(axis=0)).tolist()), bad


def _kept(rows: RowBlock, pieces: Pieces, places: list[int]) -> tuple[RowBlock, Pieces]:
    mask = np.zeros(len(rows.ids), np.bool_)
    mask[places] = True
    return rows.keep(places), [(ids[np.repeat(mask, lengths)], lengths[mask]) for ids, lengths in pieces]
