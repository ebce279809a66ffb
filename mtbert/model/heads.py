"""Task heads (sections 4.1 and 4.2): from an example's pooled vectors to its score.

Shapes: B examples, D hidden, C outputs.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.data.batches import views_for
from mtbert.model.dropout import Dropout, Noise
from mtbert.tasks.features import FEATURES
from mtbert.tasks.objective import Objective
from mtbert.tasks.task import Task


def build_heads(
    objectives: Mapping[str, Objective], tasks: Mapping[str, Task], hidden: int, dropout: float, noise: Noise
) -> dict[str, nn.Module]:
    """Make a new head for each objective, by task.

    Args:
        objectives: by task.
        tasks: by name, in the order in which the heads draw their initial weights.
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
    """W dropout([f_1; f_2; ...]) + b: a linear layer over concatenated features of u, v and c (section 4.2).

    u and v are the pooled vectors of the two sentences and c that of the pair as one sequence, each (B, D). Scores are
    (B, C), or (B,) if C is 1.

    Args:
        features: which of u, v, |u-v|, |u+v|, c to concatenate.
        hidden: D.
        outputs: C.
        dropout: on the concatenated features.
        noise: the source of the dropout masks.
    """

    def __init__(self, features: Sequence[str], hidden: int, outputs: int, dropout: float, noise: Noise) -> None:
        super().__init__()
        self.features = tuple(features)
        self.views = views_for(features)
        self.dropout = Dropout(dropout, noise, "examples")
        self.linear = nn.Linear(hidden * len(features), outputs)

    def forward(self, pooled: Mapping[str, Tensor]) -> Tensor:
        return self.linear(
            self.dropout(torch.cat([FEATURES[feature](pooled) for feature in self.features], dim=-1))
        ).squeeze(-1)


class CosineHead(nn.Module):
    """cos(u, v) = u . v / (||u|| ||v||), (B,); it has no parameters."""

    views = ("u", "v")

    def forward(self, pooled: Mapping[str, Tensor]) -> Tensor:
        # A cosine needs more than the three digits of bf16.
        return F.cosine_similarity(pooled["u"].float(), pooled["v"].float())
