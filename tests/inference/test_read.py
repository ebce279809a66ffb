"""Whatever bytes a file holds, its rows are read or refused with their line."""

import io

from hypothesis import given, settings
from hypothesis import strategies as st

from mtbert.errors import MtbertError
from mtbert.inference.model import TaskInfo, fault, names_of
from mtbert.inference.read import Bad, from_file
from tests.inference.conftest import PAIR, SINGLE

STARTS = [b"", b"sentence,sentence1,sentence2\n", b"sentence1\tsentence2\n", b'{"sentence": "a"}\n["a", "b"]\n"a"\n']
PIECES = [
    b'"',
    b",",
    b"\t",
    b"\n",
    b"\r",
    b"\0",
    b"{",
    b"[",
    b"\\ud800",
    b"\xff",
    b"\xef\xbb\xbf",
    "日本".encode(),
    b"a",
]
BYTES = st.tuples(st.sampled_from(STARTS), st.lists(st.sampled_from(PIECES) | st.binary(max_size=2), max_size=12))


@settings(max_examples=300, deadline=None)
@given(BYTES, st.sampled_from([(SINGLE, "lines"), *((t, f) for t in (SINGLE, PAIR) for f in ("tsv", "csv", "jsonl"))]))
def test_any_bytes(content: tuple[bytes, list[bytes]], kind: tuple[TaskInfo, str]) -> None:
    data, (task, form) = content[0] + b"".join(content[1]), kind
    last = 0
    try:
        for row in from_file(io.BytesIO(data), "file", form, task, None).rows:  # type: ignore[arg-type]
            assert last < row.line <= data.count(b"\n") + 1
            last = row.line
            if not isinstance(row, Bad) and not fault(row.sides, names_of(task.sentences)):
                assert len(row.sides) == task.sentences
                assert all(side.encode().strip() for side in row.sides)
    except MtbertError as error:
        assert str(error).startswith("file:1: ")
