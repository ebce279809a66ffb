"""The adapters that a run may name as `adapter.method`: their settings, and how each puts itself into a model.

To add one, write a file like lora.py and a class here, and name the class in `AnyAdapter`. Torch is imported where a method is put into
a model, so that reading the settings needs no torch.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field

from mtbert.section import Positive, Probability, Section

if TYPE_CHECKING:
    from mtbert.model.multitask import MultitaskModel
    from mtbert.peft.lora import LoraLinear


class Adapter(Section):
    """Base of the adapters.

    Attributes:
        method: the adapter's name; it decides which class reads the section.
        learning_rate: of the adapter's own parameters.
        train_rest: whether embeddings, norms and biases train too.
        start_from: the weights to adapt: `pretrained`, or another run's result.
        merges: whether the trained adapter can be merged into the layers that it adapts; otherwise it stays in the model.
        per_task: whether it gives the encoder parts for each task.
        merges_for_a_task: whether an adapter with parts for each task can be merged for one task at a time.
    """

    merges: ClassVar[bool] = True
    per_task: ClassVar[bool] = False
    merges_for_a_task: ClassVar[bool] = False

    method: str
    learning_rate: Positive
    train_rest: bool
    start_from: str

    @abstractmethod
    def insert(self, model: "MultitaskModel") -> None:
        """Put the method's modules into the encoder, in place. Parameters that are there already keep their names.

        Random numbers come from torch's global generator, which is seeded for it.

        Raises:
            MtbertError: a setting does not fit the encoder. The message begins with "adapter." and the key.
        """

    def initialise(self, model: "MultitaskModel") -> None:
        """Set initial values that are computed from the encoder's weights."""

    def selects(self, name: str) -> bool:
        """Whether a parameter that the encoder has without the adapter, such as layers.0.attention.query.bias, is the method's own."""
        return False

    def rate_factor(self, name: str) -> float:
        """What `learning_rate` is multiplied by for one of the method's own parameters."""
        return 1.0

    @property
    def title(self) -> str:
        """The method and its size, for readers."""
        return self.method


class LowRank(Adapter):
    """Base of the adapters that add a low-rank update s B A to every linear layer of the encoder.

    Attributes:
        rank, alpha: r, and the numerator of s.
        dropout: on the input of the update.
    """

    rank: int = Field(ge=1, le=4096)
    alpha: Positive
    dropout: Probability

    @property
    def title(self) -> str:
        return f"{self.method} of rank {self.rank}"

    @classmethod
    @abstractmethod
    def layer(cls) -> "type[LoraLinear]":
        """The class of the layer."""

    @property
    def own(self) -> dict[str, Any]:
        """Further arguments of the layer, after (linear, rank, alpha, dropout)."""
        return {}

    def insert(self, model: "MultitaskModel") -> None:
        from mtbert.model.dropout import Dropout
        from mtbert.peft.convert import check_rank, convert

        check_rank(model, self.rank)
        layer, dropout = self.layer(), Dropout(self.dropout, model.encoder.noise)
        convert(model, lambda linear: layer(linear, self.rank, self.alpha, dropout, **self.own))


class Lora(LowRank):
    """LoRA: W0 + s B A."""

    method: Literal["lora"]

    @classmethod
    def layer(cls) -> "type[LoraLinear]":
        from mtbert.peft.lora import LoraLinear

        return LoraLinear


class Dora(LowRank):
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


class Houlsby(Adapter):
    """Houlsby adapters: a bottleneck of width `size` after each attention and feed-forward network. All LayerNorms train too, as in
    their paper.
    """

    merges: ClassVar[bool] = False

    method: Literal["houlsby"]
    size: int = Field(ge=1, le=4096)

    @property
    def title(self) -> str:
        return f"{self.method} of size {self.size}"

    def insert(self, model: "MultitaskModel") -> None:
        from mtbert.peft.houlsby import insert

        insert(model.encoder, self.size)

    def selects(self, name: str) -> bool:
        return "norm." in name


class Pal(Adapter):
    """PALs: for each task, an attention of width `size` beside each layer."""

    merges: ClassVar[bool] = False
    per_task: ClassVar[bool] = True

    method: Literal["pal"]
    size: int = Field(ge=1, le=4096)

    @property
    def title(self) -> str:
        return f"{self.method} of size {self.size}"

    def insert(self, model: "MultitaskModel") -> None:
        from mtbert.peft.pal import insert

        insert(model.encoder, list(model.heads), self.size)


class MtLora(Adapter):
    """MTLoRA: an update s B A that all tasks share, and one of each task.

    Attributes:
        rank, task_rank: r of the shared update, and of each task's.
        alpha: the numerator of their s.
        dropout: on the input of the updates.
    """

    merges: ClassVar[bool] = False
    per_task: ClassVar[bool] = True
    merges_for_a_task: ClassVar[bool] = True

    method: Literal["mtlora"]
    rank: int = Field(ge=1, le=4096)
    task_rank: int = Field(ge=1, le=4096)
    alpha: Positive
    dropout: Probability

    @property
    def title(self) -> str:
        return f"{self.method} of rank {self.rank} and, for each task, {self.task_rank}"

    def insert(self, model: "MultitaskModel") -> None:
        from mtbert.model.dropout import Dropout
        from mtbert.peft.convert import check_rank, convert
        from mtbert.peft.mtlora import MtLoraLinear

        check_rank(model, self.rank)
        check_rank(model, self.task_rank, "task_rank")
        tasks, dropout = list(model.heads), Dropout(self.dropout, model.encoder.noise)
        convert(model, lambda linear: MtLoraLinear(linear, tasks, self.rank, self.task_rank, self.alpha, dropout))


AnyAdapter = Annotated[Lora | Dora | Houlsby | Pal | MtLora, Field(discriminator="method")]
ADAPTERS: dict[str, type[Adapter]] = {
    get_args(kind.model_fields["method"].annotation)[0]: kind for kind in get_args(get_args(AnyAdapter)[0])
}
