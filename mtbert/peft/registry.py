"""The adapters that a run may name as `adapter.method`: their settings, and how each puts itself into a model.

To add one, write a file like lora.py and a class here, and name the class in `AnyAdapter`. Torch is imported where a method is put into
a model, so that reading the settings needs no torch.
"""

from abc import abstractmethod
from math import gcd
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from mtbert.errors import MtbertError
from mtbert.section import Contradiction, Positive, Probability, Section

if TYPE_CHECKING:
    from mtbert.model.multitask import MultitaskModel
    from mtbert.peft.lora import LoraLinear


Rank = Annotated[int, Field(ge=1, le=4096)]


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
        """Whether a parameter that the model has without the adapter, such as encoder.embeddings.norm.bias, is the method's own."""
        return False

    def rate_factor(self, name: str) -> float:
        """What `learning_rate` is multiplied by for one of the method's own parameters."""
        return 1.0

    @property
    def trains_shared(self) -> bool:
        """Whether parameters of the encoder train that all tasks share."""
        return True

    @property
    def title(self) -> str:
        """The method and its size, for readers."""
        return self.method


class OfRank(Adapter):
    """Base of the methods whose size is a rank, r."""

    rank: Rank

    @property
    def title(self) -> str:
        return f"{self.method} of rank {self.rank}"


class LowRank(OfRank):
    """Base of LoRA and what follows from it: every linear layer of the encoder gets a low-rank update s B A.

    Attributes:
        alpha: the numerator of s = alpha / r.
        dropout: on the input of the update.
    """

    alpha: Positive
    dropout: Probability

    @property
    def numerator(self) -> float:
        """The numerator of s, whose denominator is r."""
        return self.alpha

    @property
    def own(self) -> dict[str, Any]:
        """Further arguments of the layer, after (linear, rank, alpha, dropout)."""
        return {}

    @classmethod
    def layer(cls) -> "type[LoraLinear]":
        """The class of the layer."""
        from mtbert.peft.lora import LoraLinear

        return LoraLinear

    def insert(self, model: "MultitaskModel") -> None:
        from mtbert.model.dropout import Dropout
        from mtbert.peft.convert import check_rank, convert

        check_rank(model, self.rank)
        layer, noise = self.layer(), model.encoder.noise
        convert(
            model, lambda linear: layer(linear, self.rank, self.numerator, Dropout(self.dropout, noise), **self.own)
        )


class Lora(LowRank):
    """LoRA: W0 + s B A (Hu et al. 2021)."""

    method: Literal["lora"]


class RsLora(LowRank):
    """rsLoRA: LoRA with s = alpha / sqrt(r), which keeps the size of the update independent of the rank (Kalajdzievski 2023)."""

    method: Literal["rslora"]

    @property
    def numerator(self) -> float:
        return self.alpha * self.rank**0.5


class LoraPlus(LowRank):
    """LoRA+: LoRA whose B has a higher learning rate than its A (Hayou et al. 2024).

    Attributes:
        rate_ratio: λ, by which B's rate is higher; A's is `learning_rate`.
    """

    method: Literal["lora_plus"]
    rate_ratio: Positive = 16.0

    def rate_factor(self, name: str) -> float:
        return self.rate_ratio if name.endswith(".lora_b") else 1.0


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


class Pissa(OfRank):
    """PiSSA: the principal singular triplets of W0 are trained, the rest is frozen (mtbert/peft/pissa.py)."""

    method: Literal["pissa"]

    def insert(self, model: "MultitaskModel") -> None:
        from mtbert.peft.convert import check_rank, convert
        from mtbert.peft.pissa import PissaLinear

        check_rank(model, self.rank)
        convert(model, lambda linear: PissaLinear(linear, self.rank))

    def initialise(self, model: "MultitaskModel") -> None:
        from mtbert.peft.pissa import PissaLinear

        for layer in model.encoder.modules():
            if isinstance(layer, PissaLinear):
                layer.initialise()


class Miss(OfRank):
    """MiSS: one shard of r rows, repeated along the inputs, is added to W0 (mtbert/peft/miss.py)."""

    method: Literal["miss"]

    def insert(self, model: "MultitaskModel") -> None:
        from mtbert.peft.convert import check_rank, convert
        from mtbert.peft.miss import MissLinear

        check_rank(model, self.rank)
        convert(model, lambda linear: MissLinear(linear, self.rank))


class Vera(OfRank):
    """VeRA: two vectors for each layer scale one random low-rank update (mtbert/peft/vera.py). Its rank may exceed a layer's width,
    since A and B are not trained.

    Attributes:
        d_initial: the initial value of d's elements.
    """

    method: Literal["vera"]
    d_initial: Positive = 0.1

    def insert(self, model: "MultitaskModel") -> None:
        from mtbert.peft.convert import convert, linears
        from mtbert.peft.vera import SharedPair, VeraLinear

        outputs, inputs = (
            max(sizes) for sizes in zip(*(one.weight.shape for one in linears(model).values()), strict=True)
        )
        pair = SharedPair(self.rank, inputs, outputs)
        convert(model, lambda linear: VeraLinear(linear, pair, self.d_initial))


class Oft(Adapter):
    """OFT: each layer's input is rotated in blocks (mtbert/peft/oft.py).

    Attributes:
        block_size: b; a layer of I inputs has I (b - 1) / 2 parameters.
    """

    method: Literal["oft"]
    block_size: int = Field(ge=2, le=4096)

    @property
    def title(self) -> str:
        return f"oft of block size {self.block_size}"

    def insert(self, model: "MultitaskModel") -> None:
        from mtbert.peft.convert import convert, linears
        from mtbert.peft.oft import OftLinear

        common = gcd(*(linear.in_features for linear in linears(model).values()))
        for name, linear in linears(model).items():
            if linear.in_features % self.block_size:
                raise MtbertError(
                    f"adapter.block_size is {self.block_size}, which does not divide the {linear.in_features} inputs of {name}; "
                    f"set it to a divisor of {common}, which divides the inputs of every layer"
                )
        convert(model, lambda linear: OftLinear(linear, self.block_size))


class Ia3(Adapter):
    """(IA)³: vectors scale keys, values and the inner activations of the feed-forward network (mtbert/peft/ia3.py)."""

    method: Literal["ia3"]

    def insert(self, model: "MultitaskModel") -> None:
        from mtbert.peft.convert import linears, swap
        from mtbert.peft.ia3 import Ia3Linear

        for name, linear in linears(model).items():
            if name.endswith((".key", ".value", ".down")):
                swap(model, name, Ia3Linear(linear, on_input=name.endswith(".down")))


class Selection(Adapter):
    """Base of the methods that add nothing and train some of the model's parameters, at the adapter's rate."""

    train_rest: bool = False

    def insert(self, model: "MultitaskModel") -> None:
        pass

    @model_validator(mode="after")
    def _nothing_else_trains(self) -> "Selection":
        if self.train_rest:
            raise Contradiction(f"{self.method} trains nothing else of the encoder; set it to false", "train_rest")
        return self


class BitFit(Selection):
    """BitFit: all biases of the encoder are trained, those of norms too (Ben Zaken et al. 2022)."""

    method: Literal["bitfit"]

    def selects(self, name: str) -> bool:
        return name.startswith("encoder.") and name.endswith(".bias")


class LinearProbe(Selection):
    """Linear probe: the heads alone are trained (Alain and Bengio 2017)."""

    method: Literal["linear_probe"]

    def selects(self, name: str) -> bool:
        return name.startswith(("heads.", "pair_layer."))

    @property
    def trains_shared(self) -> bool:
        return False


class Inserted(Adapter):
    """Base of the methods whose modules are inserted into the encoder and stay there.

    Attributes:
        size: the width of the modules.
    """

    merges: ClassVar[bool] = False

    size: int = Field(ge=1, le=4096)

    @property
    def title(self) -> str:
        return f"{self.method} of size {self.size}"


class Houlsby(Inserted):
    """Houlsby adapters: a bottleneck after each attention and feed-forward network; all LayerNorms train too (mtbert/peft/houlsby.py)."""

    method: Literal["houlsby"]

    def insert(self, model: "MultitaskModel") -> None:
        from mtbert.peft.houlsby import insert

        insert(model.encoder, self.size)

    def selects(self, name: str) -> bool:
        return name.startswith("encoder.") and "norm." in name


class Pal(Inserted):
    """PALs: for each task, an attention beside each layer (mtbert/peft/pal.py)."""

    per_task: ClassVar[bool] = True

    method: Literal["pal"]

    @property
    def trains_shared(self) -> bool:
        return self.train_rest

    def insert(self, model: "MultitaskModel") -> None:
        from mtbert.peft.pal import insert

        insert(model.encoder, list(model.heads), self.size)


class MtLora(Adapter):
    """MTLoRA: an update s B A that all tasks share, and one of each task (mtbert/peft/mtlora.py).

    Attributes:
        rank, task_rank: r of the shared update, and of each task's.
        alpha: the numerator of their s.
        dropout: on the input of the updates.
    """

    merges: ClassVar[bool] = False
    per_task: ClassVar[bool] = True
    merges_for_a_task: ClassVar[bool] = True

    method: Literal["mtlora"]
    rank: Rank
    task_rank: Rank
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
        sizes, noise = (self.rank, self.task_rank, self.alpha), model.encoder.noise
        convert(model, lambda linear: MtLoraLinear(linear, list(model.heads), *sizes, Dropout(self.dropout, noise)))


AnyAdapter = Annotated[
    Lora | RsLora | LoraPlus | Dora | Pissa | Miss | Vera | Oft | Ia3 | BitFit | LinearProbe | Houlsby | Pal | MtLora,
    Field(discriminator="method"),
]
ADAPTERS: dict[str, type[Adapter]] = {
    get_args(kind.model_fields["method"].annotation)[0]: kind for kind in get_args(get_args(AnyAdapter)[0])
}
