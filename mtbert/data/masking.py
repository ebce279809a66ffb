"""Masked tokens for BERT's pretraining task (Devlin et al. 2019, section 3.1). Shapes: T tokens, M masked ones."""

from typing import NamedTuple

import numpy as np

CHOSEN = 0.15  # of the tokens
AS_MASK, AS_RANDOM = 0.8, 0.1  # of those chosen, become [MASK] or another wordpiece; the others stay as they are


class Masking(NamedTuple):
    """Token ids of which some are hidden.

    Attributes:
        ids: (T,) int64, the model's input.
        places: (M,) int64, the tokens to predict, in order; at least one.
        targets: (M,) int64, their ids.
    """

    ids: np.ndarray
    places: np.ndarray
    targets: np.ndarray


def masked(ids: np.ndarray, fixed: np.ndarray, mask: int, vocabulary: int, rng: np.random.Generator) -> Masking:
    """Choose 15% of the tokens at random, and replace 80% of them by [MASK] and 10% by random wordpieces.

    Args:
        ids: (T,) int64.
        fixed: (T,) boolean, tokens that are never chosen; at least one token must be free.
        mask: the id of [MASK].
        vocabulary: number of ids.
    """
    chosen = (rng.random(len(ids)) < CHOSEN) & ~fixed
    if not chosen.any():
        chosen[rng.choice(np.flatnonzero(~fixed))] = True
    places = np.flatnonzero(chosen)
    kind = rng.random(len(places))
    hidden = ids.copy()
    hidden[places[kind < AS_MASK]] = mask
    random = places[(kind >= AS_MASK) & (kind < AS_MASK + AS_RANDOM)]
    hidden[random] = rng.integers(vocabulary, size=len(random))
    return Masking(hidden, places, ids[places])
