"""The rows of a table or figure in params.yaml."""

from collections.abc import Mapping

from mtbert.errors import MtbertError

Rows = Mapping[str, str]  # {row: run}


def nonempty(rows: Rows, key: str) -> Rows:
    """The rows.

    Args:
        key: where they stand in params.yaml, such as "tables.table1".

    Raises:
        MtbertError: there are none.
    """
    if not rows:
        raise MtbertError(f"params.yaml: {key} names no run; add a row (ROW: RUN), or remove {key}")
    return rows
