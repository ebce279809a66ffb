"""Parquet as pyarrow writes it: rows in their order, and one error for whatever is wrong."""

import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from mtbert.errors import MtbertError
from mtbert.inference.model import TaskInfo
from mtbert.inference.read import Bad, Row, from_file
from tests.inference.conftest import PAIR, SINGLE

MANY = [f"sentence {n}" for n in range(3000)]


def written(table: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    parquet.write_table(table, file, **options)
    return file.getvalue()


def rows(data: bytes, task: TaskInfo = SINGLE, columns: tuple[str, ...] | None = None) -> list[Row | Bad]:
    return list(from_file(io.BytesIO(data), "in.parquet", "parquet", task, columns).rows)


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_every_type_of_text(kind: Any) -> None:
    column = pa.array(["a", "日本", "a"], pa.string()).cast(kind)
    assert rows(written(pa.table({"id": [1, 2, 3], "sentence": column}))) == [
        Row(number, (text,)) for number, text in enumerate(["a", "日本", "a"], start=1)
    ]


def test_pairs_in_named_columns_over_several_row_groups() -> None:
    data = written(pa.table({"b.2": MANY[::-1], "a": MANY}), row_group_size=700)
    found = rows(data, PAIR, ("a", "b.2"))
    assert found == [Row(n + 1, (text, MANY[-1 - n])) for n, text in enumerate(MANY)]


def test_a_null_is_a_bad_row() -> None:
    data = written(pa.table({"sentence1": ["a", "b", None], "sentence2": ["c", None, "d"]}))
    assert rows(data, PAIR) == [Row(1, ("a", "c")), Bad(2, "sentence2 is null"), Bad(3, "sentence1 is null")]
    assert rows(written(pa.table({"sentence": [None]}))) == [Bad(1, "sentence is null")]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def overwritten(data: bytes) -> bytes:
    """With the middle of a column's data damaged, and the footer intact."""
    middle = data.index(b"sentence 2000")
    return data[: middle - 4] + b"\xff" * 40 + data[middle + 36 :]


@pytest.mark.parametrize(
    ("column", "damage", "message"),
    [
        ({"sentenc": ["a"]}, bytes, "in.parquet:1: no column 'sentence' in the header; did you mean 'sentenc'?"),
        ({"sentence": [1, 2]}, bytes, "in.parquet: column 'sentence' holds int64, not text; write it as strings"),
        ({"sentence": [["a"]]}, bytes, "in.parquet: column 'sentence' holds list<"),
        ({"sentence": [b"a"]}, bytes, "in.parquet: column 'sentence' holds binary, not text; write it as strings"),
        ({"sentence": MANY}, cut, "in.parquet: not Parquet (Parquet magic bytes not found"),
        ({"sentence": MANY}, lambda _: b"", "in.parquet: not Parquet (Parquet file size is 0 bytes); write it again"),
        ({"sentence": MANY}, overwritten, "in.parquet: from row 1025 on, it cannot be read ("),
    ],
)
def test_an_error_is_one_line_with_its_place(
    column: dict[str, list[Any]], damage: Callable[[bytes], bytes], message: str
) -> None:
    data = written(pa.table(column), row_group_size=1024, compression="none", use_dictionary=False)
    with pytest.raises(MtbertError) as caught:
        rows(damage(data))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
