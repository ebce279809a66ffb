"""What the sections of the settings are made of: typed, strict and frozen."""

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
    """Settings that do not fit together; `keys` lead from the section that is checked to the key that has to change."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


def one_of(names: Iterable[str]) -> PlainValidator:
    """For a setting that is a key of a registry, `Annotated[str, one_of(REGISTRY)]`."""
    known = list(names)

    def check(value: Any) -> str:
        if isinstance(value, str) and value in known:
            return value
        raise PydanticKnownError("literal_error", {"expected": ", ".join(map(repr, known))})

    return PlainValidator(check)
