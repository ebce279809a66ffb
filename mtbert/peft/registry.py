"""The adapters that a run may name as `adapter.method`: their settings, and the layers that replace linear ones.

To add one, write a file like lora.py and a class here, and name the class in `AnyAdapter`.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field

from mtbert.section import Positive, Probability, Section

if TYPE_CHECKING:
    from mtbert.peft.lora import LoraLinear  # imported where it is used, so that reading the settings needs no torch


class Adapter(Section):
    """Base of the adapters.

    Attributes:
        method: the adapter's name; it decides which class reads the section.
        rank, alpha: r, and the numerator of s = alpha / r.
        learning_rate: of the adapter's own parameters.
        dropout: on the input of the update.
        train_rest: whether embeddings, norms and biases train too.
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
        """Further arguments of the layer, after (linear, rank, alpha, dropout)."""
        return {}

    @classmethod
    @abstractmethod
    def layer(cls) -> "type[LoraLinear]":
        """The class of the layer; its `added` names the parameters that it adds."""


class Lora(Adapter):
    """LoRA: W0 + s B A."""

    method: Literal["lora"]

    @classmethod
    def layer(cls) -> "type[LoraLinear]":
        from mtbert.peft.lora import LoraLinear

        return LoraLinear


class Dora(Adapter):
    """DoRA, equation 2. `norm_gradient` is `exact`, or `detached`: the norm is then a constant in the backward pass."""

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
