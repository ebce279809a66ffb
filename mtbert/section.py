"""The base of all sections of the settings: typed, strict and frozen."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticKnownError

Probability = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of every section: no unknown keys, no silent conversions (`"8"` is not 8), no changes after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Contradiction(ValueError):
    """Settings that contradict each other; `keys` is the path from the checked section to the key to change."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


def one_of(names: Iterable[str]) -> PlainValidator:
    """Validates a setting that names an entry of a registry: `Annotated[str, one_of(REGISTRY)]`."""
    known = list(names)

    def check(value: Any) -> str:
        if isinstance(value, str) and value in known:
            return value
        raise PydanticKnownError("literal_error", {"expected": ", ".join(map(repr, known))})

    return PlainValidator(check)
