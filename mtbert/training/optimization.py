"""What the paper's constant rate and last weights leave out: schedules, rates by depth, clipping, averaging, choosing an epoch."""

import math
from typing import Annotated, Literal

from pydantic import Field

from mtbert.section import Positive, Probability, Section

Share = Annotated[float, Field(gt=0, lt=1)]


class Optimization(Section):
    """A run's section `optimization`. The defaults are the paper's: a constant rate, and the weights after the last step.

    Attributes:
        warmup: the share of the steps over which the rates rise linearly from 0.
        decay: how they fall to 0 after that: `linear`, or `cosine`, half a period.
        layer_decay: the rate of layer l of L is multiplied by layer_decay ** (L + 1 - l), the embeddings being l = 0;
            heads and BERT's pooler keep the full rate (Clark et al. 2020, ELECTRA).
        head_learning_rate: of the heads and the pair layer; None means the run's `learning_rate`.
        clip_norm: the gradients of a step are scaled down to this norm, all parameters together; None: never.
        average: decay of an exponential moving average of the weights, which is evaluated and kept in their place.
        hold_out: share of each training set that is not trained on; of all epochs, the weights of the one that scores
            highest on it are kept. So dev takes no part in the choice. None: the last epoch's.
    """

    warmup: Probability = 0.0
    decay: Literal["none", "linear", "cosine"] = "none"
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    head_learning_rate: Positive | None = None
    clip_norm: Positive | None = None
    average: Share | None = None
    hold_out: Share | None = None

    @property
    def varies(self) -> bool:
        """Whether the rates change from step to step."""
        return self.warmup > 0 or self.decay != "none"

    def factor(self, step: int, steps: int) -> float:
        """What the rates are multiplied by in training step `step` of `steps`, counted from 1; as transformers' schedules."""
        done, warm = step - 1, math.ceil(self.warmup * steps)
        if done < warm:
            return done / warm
        if self.decay == "none":
            return 1.0
        progress = (done - warm) / max(1, steps - warm)
        return 1 - progress if self.decay == "linear" else (1 + math.cos(math.pi * progress)) / 2


PAPER = Optimization()
