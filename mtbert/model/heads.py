"""Task heads (sections 4.1 and 4.2): from an example's pooled vectors to its score.

Shapes: B examples, D hidden, S size of the pair layer, C outputs.
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
    objectives: Mapping[str, Objective],
    tasks: Mapping[str, Task],
    hidden: int,
    dropout: float,
    noise: Noise,
    pair_size: int | None = None,
) -> dict[str, nn.Module]:
    """Make a new head for each objective, by task.

    Args:
        objectives: by task.
        tasks: by name, in the order in which the heads draw their initial weights.
        hidden, dropout, noise: as `LinearHead` takes them.
        pair_size: S; linear heads of pairs are then over the pair layer.
    """
    heads: dict[str, nn.Module] = {}
    for name, task in tasks.items():
        if name not in objectives:
            continue
        objective = objectives[name]
        if objective.head == "cosine":
            heads[name] = CosineHead()
        elif pair_size is not None and task.is_pair:
            heads[name] = HeadOverPairLayer(objective.inputs, pair_size, objective.outputs(task), dropout, noise)
        else:
            heads[name] = LinearHead(objective.inputs, hidden, objective.outputs(task), dropout, noise)
    return heads


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
        return self.linear(self.dropout(concatenated(self.features, pooled))).squeeze(-1)


def concatenated(features: Sequence[str], pooled: Mapping[str, Tensor]) -> Tensor:
    """The features side by side, (B, D * len(features))."""
    return torch.cat([FEATURES[feature](pooled) for feature in features], dim=-1)


class PairLayer(nn.Module):
    """tanh(W dropout([f_1; f_2; ...]) + b), (B, S): one layer for all tasks of pairs, below their heads.

    tanh, as in BERT's own pooler. Arguments as for `LinearHead`, with S in place of C.
    """

    def __init__(self, features: Sequence[str], hidden: int, size: int, dropout: float, noise: Noise) -> None:
        super().__init__()
        self.features = tuple(features)
        self.dropout = Dropout(dropout, noise, "examples")
        self.linear = nn.Linear(hidden * len(features), size)

    def forward(self, pooled: Mapping[str, Tensor]) -> Tensor:
        return torch.tanh(self.linear(self.dropout(concatenated(self.features, pooled))))


class HeadOverPairLayer(nn.Module):
    """W dropout(p) + b over the pair layer's output p, (B, S); scores as of `LinearHead`.

    Args:
        features: those of the pair layer.
        size: S.
        outputs, dropout, noise: as for `LinearHead`.
    """

    def __init__(self, features: Sequence[str], size: int, outputs: int, dropout: float, noise: Noise) -> None:
        super().__init__()
        self.features = tuple(features)
        self.views = views_for(features)
        self.dropout = Dropout(dropout, noise, "examples")
        self.linear = nn.Linear(size, outputs)

    def forward(self, pair_BS: Tensor) -> Tensor:
        return self.linear(self.dropout(pair_BS)).squeeze(-1)


class CosineHead(nn.Module):
    """cos(u, v) = u . v / (||u|| ||v||), (B,); it has no parameters."""

    views = ("u", "v")

    def forward(self, pooled: Mapping[str, Tensor]) -> Tensor:
        # A cosine needs more than the three digits of bf16.
        return F.cosine_similarity(pooled["u"].float(), pooled["v"].float())
