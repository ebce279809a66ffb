"""Task heads (sections 4.1 and 4.2): from pooled views to a score. Shapes: B examples, D hidden, C outputs."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.data.batches import views_for
from mtbert.model.dropout import Dropout, Noise
from mtbert.model.features import concatenate
from mtbert.tasks.objective import Objective
from mtbert.tasks.task import Task


def build_heads(
    objectives: Mapping[str, Objective], tasks: Mapping[str, Task], hidden: int, dropout: float, noise: Noise
) -> dict[str, nn.Module]:
    """A fresh head for each objective, by task.

    Args:
        tasks: by name, in the order in which the heads draw their weights.
        hidden, dropout, noise: as `LinearHead` takes them.
    """
    return {
        name: LinearHead(objectives[name].inputs, hidden, task.outputs, dropout, noise)
        if objectives[name].head == "linear"
        else CosineHead()
        for name, task in tasks.items()
        if name in objectives
    }


class LinearHead(nn.Module):
    """W dropout(features) + b; scores (B, C), or (B,) where C is 1.

    Args:
        features: which of u, v, |u-v|, |u+v|, c to concatenate.
        hidden: D.
        outputs: C.
        dropout: on the concatenated features.
        noise: where its masks come from.
    """

    def __init__(self, features: Sequence[str], hidden: int, outputs: int, dropout: float, noise: Noise) -> None:
        super().__init__()
        self.features = tuple(features)
        self.views = views_for(features)
        self.dropout = Dropout(dropout, noise)
        self.linear = nn.Linear(hidden * len(features), outputs)

    def forward(self, pooled: Mapping[str, Tensor]) -> Tensor:
        return self.linear(self.dropout(concatenate(self.features, pooled))).squeeze(-1)


class CosineHead(nn.Module):
    """cos(u, v), (B,); nothing to learn."""

    views = ("u", "v")

    def forward(self, pooled: Mapping[str, Tensor]) -> Tensor:
        # Angles near 0 and 1 need more than bf16's three digits.
        return F.cosine_similarity(pooled["u"].float(), pooled["v"].float())
