"""Results as JSON holds them."""

from collections.abc import Mapping
from math import isnan
from typing import Any


def plain(found: Any, digits: int | None = None) -> Any:
    """Named tuples as mappings, tuples as lists, and NaN as None.

    Args:
        digits: significant digits of numbers; None for all.
    """
    if isinstance(found, tuple) and hasattr(found, "_asdict"):
        return plain(found._asdict(), digits)
    if isinstance(found, Mapping):
        return {key: plain(value, digits) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [plain(value, digits) for value in found]
    if isinstance(found, float):
        return None if isnan(found) else found if digits is None else float(f"{found:.{digits}g}")
    return found
