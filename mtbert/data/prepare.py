"""From files in the course's format to arrays: read, report what is wrong with them, clean, tokenise once."""

import csv
import gc
import io
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from mtbert.data.read import DROP, BadRow, Example, has_labels, place_of, read_split
from mtbert.data.tasks import TASKS, Task, raw_name
from mtbert.data.wordpieces import wordpieces
from mtbert.errors import MtbertError
from mtbert.files import atomic_json, replaced_folder, sha256_file
from mtbert.seal import check_seal, seal

LISTED = 100  # rows that the report names one by one; all are counted
WIDTH = 10  # of a column in the summary
LARGEST_VOCABULARY = 65536  # ids are stored as uint16

Key = tuple[str, ...]


def prepare(
    raw_folder: Path,
    out_folder: Path,
    tokenizer_file: Path,
    on_bad_row: Literal["error", "drop"],
    leakage: Literal["keep", "drop"],
    preprocess: Literal["course", "none"],
    max_tokens: int,
) -> dict[str, Any]:
    """Replace `out_folder` by {task}/{split}/ arrays and examples, tokenizer.json and report.json.

    A test file may be absent; its split then is. Sentences too long for `max_tokens` are counted, not cut.

    Args:
        raw_folder: holds {task}-{split}.csv.
        tokenizer_file: a `tokenizers` file; its own truncation and padding are switched off.
        on_bad_row: stop at the first malformed row, or leave malformed rows out and list them.
        leakage: drop takes out of train what stands in dev or test too.
        preprocess: course, or none for the text as published.
        max_tokens: longest sequence with its special tokens.

    Returns:
        The report, as written to report.json.

    Raises:
        MtbertError: as `read_split`; for raw files that changed since `fetch` wrote them, an unusable tokenizer, a sentence without wordpieces, a split without rows.
    """
    check_seal(raw_folder)
    tokenizer = _tokenizer(tokenizer_file)
    tasks: dict[str, Any] = {}
    with replaced_folder(out_folder) as fresh, _without_cycles():
        for task in TASKS.values():
            tasks[task.name] = _prepare_task(
                task, raw_folder, fresh, tokenizer, on_bad_row, leakage, preprocess, max_tokens
            )
        shutil.copyfile(tokenizer_file, fresh / "tokenizer.json")
        report = {
            "settings": {
                "on_bad_row": on_bad_row,
                "leakage": leakage,
                "preprocess": preprocess,
                "max_tokens": max_tokens,
            },
            "tokenizer": {"sha256": sha256_file(tokenizer_file), "vocabulary": tokenizer.get_vocab_size()},
            "tasks": tasks,
        }
        atomic_json(fresh / "report.json", report)
        seal(fresh)
    return report


@contextmanager
def _without_cycles() -> Iterator[None]:
    """Millions of small objects and no cycle among them: looking for one takes a seventh of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def clean(text: str, task: Task, preprocess: Literal["course", "none"]) -> str:
    """The sentence as it is tokenised.

    course: what the course's starter code does. Pairs are lower-cased, get a space before each `. ? , '`, and single
    spaces elsewhere; single sentences are lower-cased and stripped.
    """
    if preprocess == "none":
        return text
    text = text.lower()
    if not task.is_pair:
        return text.strip()
    for mark in ".?,'":
        text = text.replace(mark, f" {mark}")
    return " ".join(text.split())


def sentences_key(example: Example) -> Key:
    """What makes two rows the same: their sentences but for case and spacing, in either order."""
    texts = [example.sentence1] if example.sentence2 is None else [example.sentence1, example.sentence2]
    return tuple(sorted(" ".join(text.casefold().split()) for text in texts))


def summary(report: dict[str, Any]) -> str:
    """The report as plain text for a console, one line per split and one per kind of blemish."""
    heads = ("rows", "kept", "bad", "repeated", "leaked", "too long", "wordpieces")
    lines = [f"{'task':<6} {'split':<5} " + " ".join(f"{head:>{WIDTH}}" for head in heads)]
    notes = []
    for task, splits in report["tasks"].items():
        for split, told in splits.items():
            if not told["present"]:
                notes.append(f"{task} {split}: no file, so no predictions for it")
                continue
            leaked = told["leaked"]["rows"] if "leaked" in told else "-"
            numbers = (
                *(told["rows_read"], told["rows_kept"], told["bad_rows"]["count"], told["repeated"]["sentences"]),
                *(leaked, told["over_long"]["sequences"], told["wordpieces"]["total"]),
            )
            lines.append(f"{task:<6} {split:<5} " + " ".join(f"{number:>{WIDTH}}" for number in numbers))
            listed = told["bad_rows"]["listed"]
            notes += [f"left out {row['where']}: {row['what']}" for row in listed[:5]]
            if told["bad_rows"]["count"] > 5:
                notes.append(f"left out {told['bad_rows']['count'] - 5} more rows of {task} {split}, see report.json")
            if leaked not in ("-", 0):
                done = (
                    "removed from train" if told["leaked"]["removed"] else "kept (prepare.leakage: drop removes them)"
                )
                notes.append(f"{task}: {leaked} train rows stand in {_shares(told['leaked'])} too; {done}")
    return "\n".join(lines + notes)


def _shares(leaked: dict[str, Any]) -> str:
    return " and ".join(f"{split} ({leaked[split]})" for split in ("dev", "test") if leaked.get(split))


def _tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise MtbertError(f"{path}: no tokenizer there; check encoder.source in params.yaml")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise MtbertError(
            f"{path}: not a tokenizer file ({error}); use the tokenizer.json that comes with the encoder"
        ) from None
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if largest >= LARGEST_VOCABULARY:
        remedy = f"choose an encoder of at most {LARGEST_VOCABULARY} wordpieces"
        raise MtbertError(f"{path}: token id {largest} does not fit into 16 bits; {remedy}")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _prepare_task(
    task: Task,
    raw_folder: Path,
    out_folder: Path,
    tokenizer: Tokenizer,
    on_bad_row: Literal["error", "drop"],
    leakage: Literal["keep", "drop"],
    preprocess: Literal["course", "none"],
    max_tokens: int,
) -> dict[str, Any]:
    told: dict[str, Any] = {}
    held_out: dict[str, set[Key]] = {}
    # Dev and test first: train is compared with them.
    for split in ("test", "dev", "train"):
        path = raw_folder / raw_name(task, split)
        if split == "test" and not path.exists():
            told[split] = {"present": False}
            continue
        labelled = has_labels(path, task) if split == "test" else True
        examples, bad = read_split(path, task, labelled, on_bad_row)
        read = len(examples) + len(bad)
        examples, pieces, tokenless = _tokenise(path, task, examples, tokenizer, on_bad_row, preprocess)
        bad = sorted([*bad, *tokenless], key=lambda row: row.line)
        keys = [sentences_key(example) for example in examples]
        repeated = {
            "sentences": len(keys) - len(set(keys)),
            "sentences_and_label": len(keys)
            - len({(key, example.label) for key, example in zip(keys, examples, strict=True)}),
        }
        split_told: dict[str, Any] = {"present": True, "labelled": labelled, "rows_read": read}
        if split == "train":
            kept, leaked = _leakage(examples, keys, held_out, leakage)
            examples, pieces = [examples[n] for n in kept], [[side[n] for n in kept] for side in pieces]
            split_told["leaked"] = leaked
        else:
            held_out[split] = set(keys)
        if not examples:
            raise MtbertError(f"{path}: no row is left of {read}; check prepare.on_bad_row and prepare.leakage")
        folder = out_folder / task.name / split
        folder.mkdir(parents=True)
        _write_arrays(folder, task, examples, pieces, labelled)
        told[split] = {
            **split_told,
            "rows_kept": len(examples),
            "bad_rows": {
                "count": len(bad),
                "listed": [
                    {
                        "where": f"{row.path}:{row.line}:{row.column}",
                        "line": row.line,
                        "column": row.column,
                        "what": row.what,
                    }
                    for row in bad[:LISTED]
                ],
            },
            "repeated": repeated,
            "labels": _label_counts(task, examples) if labelled else None,
            **_lengths(pieces, max_tokens),
        }
    return {split: told[split] for split in ("train", "dev", "test")}


def _leakage(
    examples: list[Example], keys: list[Key], held_out: dict[str, set[Key]], leakage: Literal["keep", "drop"]
) -> tuple[list[int], dict[str, Any]]:
    """The train rows to keep, and what the report says about those that stand in dev or test too."""
    where = [[split for split, held in held_out.items() if key in held] for key in keys]
    leaked = [n for n, splits in enumerate(where) if splits]
    counts = Counter(split for splits in where for split in splits)
    told: dict[str, Any] = {
        "rows": len(leaked),
        **{split: counts[split] for split in ("dev", "test") if split in held_out},
        "removed": len(leaked) if leakage == "drop" else 0,
        "listed": [
            {"line": examples[n].line, "id": examples[n].id, "also_in": sorted(where[n])} for n in leaked[:LISTED]
        ],
    }
    return [n for n in range(len(keys)) if leakage == "keep" or not where[n]], told


def _tokenise(
    path: Path,
    task: Task,
    examples: list[Example],
    tokenizer: Tokenizer,
    on_bad_row: Literal["error", "drop"],
    preprocess: Literal["course", "none"],
) -> tuple[list[Example], list[list[np.ndarray]], list[BadRow]]:
    """The examples whose sentences all have wordpieces, those wordpieces by sentence and row, and the rows left out."""
    texts = [[example.sentence1 for example in examples]]
    if task.is_pair:
        texts.append([example.sentence2 or "" for example in examples])
    sides = [list(wordpieces((clean(text, task, preprocess) for text in side), tokenizer)) for side in texts]
    bad: dict[int, BadRow] = {}
    for n, example in enumerate(examples):
        for sentence, side in enumerate(sides, start=1):
            if len(side[n]) == 0 and n not in bad:
                what = f"{task.texts[sentence - 1]} has no wordpiece (nothing but characters that the tokenizer drops)"
                bad[n] = BadRow(str(path), *place_of(path, task, example.line, sentence), what, DROP)
                if on_bad_row == "error":
                    raise MtbertError(str(bad[n]))
    if bad:
        kept = [n for n in range(len(examples)) if n not in bad]
        examples, sides = [examples[n] for n in kept], [[side[n] for n in kept] for side in sides]
    return examples, sides, list(bad.values())


def _write_arrays(
    folder: Path, task: Task, examples: list[Example], pieces: list[list[np.ndarray]], labelled: bool
) -> None:
    for sentence, side in enumerate(pieces, start=1):
        _save(folder / f"ids{sentence}.npy", np.concatenate(side))
        _save(folder / f"offsets{sentence}.npy", np.cumsum([0, *map(len, side)], dtype=np.int64))
    if labelled:
        _save(folder / "labels.npy", np.array([example.label for example in examples], dtype=np.float32))
    with (folder / "examples.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "sentence1", *(["sentence2"] if task.is_pair else []), "label"])
        for example in examples:
            texts = [example.sentence1] if example.sentence2 is None else [example.sentence1, example.sentence2]
            writer.writerow([example.id, *texts, _label_text(task, example.label)])


def _save(path: Path, array: np.ndarray) -> None:
    """np.save, by way of memory: on a full disk it does not say that the disk is full."""
    data = io.BytesIO()
    np.save(data, array, allow_pickle=False)
    path.write_bytes(data.getvalue())


def _label_text(task: Task, label: float | None) -> str:
    if label is None:
        return ""
    return str(label) if task.kind == "regression" else str(int(label))


def _label_counts(task: Task, examples: list[Example]) -> dict[str, int]:
    """Rows per label; of a regression, per rounded label."""
    counts = Counter(round(example.label) for example in examples if example.label is not None)
    return {str(label): counts[label] for label in range(int(task.low), int(task.high) + 1)}


def _lengths(pieces: list[list[np.ndarray]], max_tokens: int) -> dict[str, Any]:
    """Counts of wordpieces, and of sequences that [CLS], [SEP] (twice for a pair) leave no room for."""
    sides = [np.array([len(row) for row in side]) for side in pieces]
    both = np.sum(sides, axis=0)
    return {
        "wordpieces": {
            "total": int(both.sum()),
            "mean": round(float(np.mean(np.concatenate(sides))), 3),
            "longest": int(max(side.max() for side in sides)),
        },
        "over_long": {
            "sentences": int(sum((side > max_tokens - 2).sum() for side in sides)),
            "sequences": int((both > max_tokens - 1 - len(sides)).sum()),
        },
    }
