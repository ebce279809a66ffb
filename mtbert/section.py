"""What every section of the settings is: typed, strict and frozen."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of every section: no unknown keys, no silent conversions (`"8"` is not 8), no changes after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Contradiction(ValueError):
    """Settings that do not fit together; `keys` lead from the section that is checked to the key that has to change."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys
