"""PALs: projected attention layers, a small attention of each task beside each transformer layer (Stickland and Murray 2019).

Equations as in the paper; the authors' code also has biases in V_E and V_D and a GELU after V_D. They train all of BERT beside the PALs.

Shapes: T tokens, D hidden, S the PALs' hidden size.
"""

from dataclasses import replace

from torch import Tensor, nn

from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig, BertEncoder, Layer, Padding, SelfAttention
from mtbert.peft.per_task import PerTask

STD = 0.02  # of the initial weights, as BERT's


class Projection(nn.Module):
    """V_E (S, D) and V_D (D, S) of a task, which its PALs in all layers share.

    V_D starts at zero, as B of LoRA does, so that the model starts as the pretrained one.
    """

    def __init__(self, hidden: int, size: int) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(hidden, size, bias=False), nn.Linear(size, hidden, bias=False)
        nn.init.normal_(self.encode.weight, std=STD)
        nn.init.zeros_(self.decode.weight)


class PalLayer(Layer):
    """A transformer layer with norm(x' + feed_forward(x') + TS(x)) as its second residual sum, where x is the layer's input and
    x' = norm(x + attention(x)).

    TS(x) = V_D g(V_E x), where g is multi-head attention within each sequence, without an output matrix; V_D takes its place.

    Args:
        layer: the layer to extend; its parts are shared, not copied.
        attentions: g of each task.
        projections: V_E and V_D of each task.
    """

    def __init__(self, layer: Layer, attentions: PerTask, projections: PerTask) -> None:
        nn.Module.__init__(self)  # not Layer's: all of its parts are there already
        self._modules.update(layer._modules)
        self.pal = attentions
        # In a tuple, so that it is not registered here too: the encoder has it, and a state dict names each parameter once.
        self._projections = (projections,)

    def forward(self, x_TD: Tensor, padding: Padding, rows: Tensor | None = None) -> Tensor:
        """As `Layer`."""
        attended = self.attention(x_TD, padding, rows)
        h_TD = self.attention_norm((x_TD if rows is None else x_TD[rows]) + self.dropout(attended))
        added = self.task_specific(x_TD, padding, rows)
        return self.feed_forward_norm(h_TD + self.dropout(self.feed_forward(h_TD)) + added)

    def attentions(self) -> list[SelfAttention]:
        """g of each task."""
        return list(self.pal.values())  # type: ignore[arg-type]

    def parts(self) -> tuple[Projection, SelfAttention]:
        """V_E and V_D, and g, of the batch's task."""
        return self._projections[0].of_batch(), self.pal.of_batch()

    def task_specific(self, x_TD: Tensor, padding: Padding, rows: Tensor | None = None) -> Tensor:
        """TS(x), (T, D) to (T, D), or to (len(rows), D)."""
        projection, attention = self.parts()
        added: Tensor = projection.decode(attention(projection.encode(x_TD), padding, rows))
        return added


def insert(encoder: BertEncoder, tasks: list[str], size: int) -> None:
    """Give each layer a PAL for each task.

    Args:
        size: S, a multiple of the encoder's number of heads.

    Raises:
        MtbertError: it is not. The message begins with "adapter.size".
    """
    if size % (heads := encoder.config.heads):
        raise MtbertError(
            f"adapter.size is {size}, which the encoder's {heads} heads cannot share; set it to a multiple of {heads}, such as "
            f"{-(-size // heads) * heads}"
        )
    small = replace(encoder.config, hidden=size)
    encoder.pal = PerTask({task: Projection(encoder.config.hidden, size) for task in tasks})
    for n, layer in enumerate(encoder.stack()):
        attentions = PerTask({task: _attention(small, layer.attention) for task in tasks})
        encoder.layers[n] = PalLayer(layer, attentions, encoder.pal)


def _attention(config: BertConfig, like: SelfAttention) -> SelfAttention:
    """Multi-head attention without an output layer."""
    attention = SelfAttention(config, like.dropout.p, like.dropout.noise)
    attention.output = nn.Identity()  # type: ignore[assignment]
    for linear in (attention.query, attention.key, attention.value):
        nn.init.normal_(linear.weight, std=STD)
        nn.init.zeros_(linear.bias)
    return attention
