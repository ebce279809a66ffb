"""Settings of a task that params.yaml declares."""

from typing import Annotated

from pydantic import Field, model_validator

from mtbert.section import Contradiction, Section
from mtbert.tasks.task import Kind

# The kind of label that needs each optional key of a declared task, and what the key holds.
KIND_KEYS = {"classes": "classes", "low": "score", "high": "score"}
KIND_NEEDS = {"classes": "the names of the classes as the files spell them", "score": "the ends of its range"}

Finite = Annotated[float, Field(allow_inf_nan=False)]


class DeclaredTask(Section):
    """A task declared in params.yaml: the columns of its files, and its labels."""

    texts: list[str] = Field(min_length=1, max_length=2)
    label: str = Field(min_length=1)
    kind: Kind
    classes: list[str] | None = None
    low: Finite | None = None
    high: Finite | None = None

    @model_validator(mode="after")
    def _kind_has_its_keys(self) -> "DeclaredTask":
        columns = [*self.texts, self.label]
        for number, name in enumerate(columns):
            if not name.strip() or name == "id" or name in columns[:number]:
                raise Contradiction(
                    f"{name!r} cannot be the name of this column; names must be unique, not blank, and not id",
                    *(("texts", str(number)) if number < len(self.texts) else ("label",)),
                )
        for key, kind in KIND_KEYS.items():
            value = getattr(self, key)
            if value is not None and kind != self.kind:
                raise Contradiction(f"kind {self.kind} does not use it; remove it, or set kind: {kind}", key)
            if value is None and kind == self.kind:
                raise Contradiction(f"{kind} needs {key}, {KIND_NEEDS[kind]}; add it", "kind")
        if self.classes is not None:
            if len(self.classes) < 2:
                raise Contradiction("fewer than two classes; list them all", "classes")
            seen: set[str] = set()
            for number, name in enumerate(self.classes):
                if name != name.strip() or not name:
                    raise Contradiction(
                        f"{name!r} is empty, or starts or ends with white space; rename it", "classes", str(number)
                    )
                if name in seen:
                    raise Contradiction(f"{name!r} is listed twice; remove one", "classes")
                seen.add(name)
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise Contradiction(f"must be above low ({self.low:g})", "high")
        return self
