"""The adapters that a run may name as `adapter.method`: their settings, and the layer that each puts in place of a linear one.

A new one is a file like lora.py and a class here, named in `AnyAdapter`, from which settings and registry read it.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field

from mtbert.section import Positive, Probability, Section

if TYPE_CHECKING:
    from mtbert.peft.lora import LoraLinear  # imported where it is used: reading the settings needs no torch


class Adapter(Section):
    """Base of the adapters.

    Attributes:
        method: its name, which tells one section from another.
        rank, alpha: r, and the numerator of s = alpha / r.
        learning_rate: of the adapter's own parameters.
        dropout: on the input of the update.
        train_rest: embeddings, norms and biases train too.
        start_from: the weights to adapt: `pretrained`, or another run's result.
    """

    method: str
    rank: int = Field(ge=1, le=4096)
    alpha: Positive
    learning_rate: Positive
    dropout: Probability
    train_rest: bool
    start_from: str

    @property
    def own(self) -> dict[str, Any]:
        """What the layer takes beside (linear, rank, alpha, dropout)."""
        return {}

    @classmethod
    @abstractmethod
    def layer(cls) -> "type[LoraLinear]":
        """The layer; it says which parameters it adds (`added`)."""


class Lora(Adapter):
    """W0 + s B A."""

    method: Literal["lora"]

    @classmethod
    def layer(cls) -> "type[LoraLinear]":
        from mtbert.peft.lora import LoraLinear

        return LoraLinear


class Dora(Adapter):
    """Equation 2. The gradient passes through the norm (`exact`), or the norm counts as a constant (`detached`)."""

    method: Literal["dora"]
    norm_gradient: Literal["exact", "detached"]

    @property
    def own(self) -> dict[str, Any]:
        return {"exact_norm": self.norm_gradient == "exact"}

    @classmethod
    def layer(cls) -> "type[LoraLinear]":
        from mtbert.peft.dora import DoraLinear

        return DoraLinear


AnyAdapter = Annotated[Lora | Dora, Field(discriminator="method")]
ADAPTERS: dict[str, type[Adapter]] = {
    get_args(kind.model_fields["method"].annotation)[0]: kind for kind in get_args(get_args(AnyAdapter)[0])
}
