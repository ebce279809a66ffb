"""The header of a raw file, which gives the meaning of its columns.

The course's files are tab-separated. Their columns are one or two unnamed index columns, `id`, the sentences and, except in
unlabelled test files, the label. The files of a declared task are separated by commas or tabs, with columns in any order. Other
columns are ignored; without an `id` column, the line number is a row's id.
"""

import re
from typing import NamedTuple

from mtbert.corpus.lines import Lines
from mtbert.corpus.split import Fault, split_row
from mtbert.errors import MtbertError
from mtbert.tasks.task import Task

INDEX_NAME = re.compile(r"|[0-9]+|Unnamed: [0-9]+")


class Layout(NamedTuple):
    """The columns of a file, by index.

    Attributes:
        names: the names of all columns.
        id: None if there is no id column.
        label: None if the file is unlabelled.
        next_line: the line after the header.
    """

    names: list[str]
    task: Task
    id: int | None
    texts: tuple[int, ...]
    label: int | None
    next_line: int


def read_header(lines: Lines, task: Task, labelled: bool | None) -> Layout:
    """Read the header, and set the delimiter of `lines`.

    Args:
        labelled: whether the file must have the task's label column; None if it may.

    Raises:
        MtbertError: it is not a header of the task's files.
    """
    lines.delimiter = "\t" if task.course or "\t" in lines[0] else ","
    if labelled is None:
        labelled = task.label in lines[0].replace('"', "").split(lines.delimiter)
    return (_course if task.course else _declared)(lines, task, labelled)


def _declared(lines: Lines, task: Task, labelled: bool) -> Layout:
    wanted = [*task.texts, *([task.label] if labelled else [])]
    try:
        row = split_row(lines, 1, len(wanted))
    except Fault as error:
        raise MtbertError(f"{lines.origin.name}:1:{error.place[1]}: header: {error.what}; correct it") from None
    for name in (*wanted, "id"):
        if name not in row.fields and name != "id":
            raise MtbertError(
                f"{lines.origin.name}:1:{len(lines[0]) + 1}: header: missing column {name}; it must name {', '.join(wanted)}, "
                f"separated by commas or tabs; correct it, or the column's name under tasks.{task.name} in params.yaml"
            )
        if row.fields.count(name) > 1:
            second = row.fields.index(name, row.fields.index(name) + 1)
            raise MtbertError(
                f"{lines.origin.name}:1:{row.place(second)[1]}: header: column {name!r} appears twice; rename one of the two"
            )
    texts = tuple(map(row.fields.index, task.texts))
    own_id = row.fields.index("id") if "id" in row.fields else None
    return Layout(row.fields, task, own_id, texts, row.fields.index(task.label) if labelled else None, row.next_line)


def _course(lines: Lines, task: Task, labelled: bool) -> Layout:
    expected = ["id", *task.texts, *([task.label] if labelled else [])]
    layout = "a tab-separated header: an unnamed index column, " + ", ".join(expected)

    def fault(column: int, what: str) -> MtbertError:
        return MtbertError(f"{lines.origin.name}:1:{column}: {what}; this file must start with {layout}")

    if "\t" not in lines[0]:
        other = next(
            (name for mark, name in ((",", "commas"), (";", "semicolons"), ("|", "bars")) if mark in lines[0]), None
        )
        raise fault(1, f"columns separated by {other} rather than tabs" if other else "no header")
    try:
        row = split_row(lines, 1, len(expected) + 1)
    except Fault as error:
        raise fault(error.place[1], f"header: {error.what}") from None
    names = row.fields
    index_columns = next((n for n, name in enumerate(names) if not INDEX_NAME.fullmatch(name)), len(names))
    if names[index_columns:] == expected and 1 <= index_columns <= 2:
        texts = tuple(range(index_columns + 1, index_columns + 1 + len(task.texts)))
        return Layout(names, task, index_columns, texts, len(names) - 1 if labelled else None, row.next_line)
    if not set(names) & set(expected):
        raise fault(1, "no header")
    if index_columns == 0:
        raise fault(1, "header: no index column")
    if index_columns > 2:
        raise fault(row.place(2)[1], f"header: {index_columns} unnamed columns")
    for n, name in enumerate(names[index_columns:]):
        column = row.place(index_columns + n)[1]
        if name not in expected:
            hint = "; an unlabelled file has no label" if name == task.label else ""
            raise fault(column, f"header: unknown column {name!r}{hint}")
        if name in names[index_columns : index_columns + n]:
            raise fault(column, f"header: column {name!r} appears twice")
        if n < len(expected) and name != expected[n] and set(expected) <= set(names):
            raise fault(column, f"header: column {name!r} where {expected[n]!r} belongs")
    missing = [name for name in expected if name not in names]
    raise fault(len(lines[0]) + 1, f"header: missing column{'s' * (len(missing) > 1)} {', '.join(missing)}")
