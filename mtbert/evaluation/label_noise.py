"""Examples whose label models contradict: candidates for a wrong label.

The rule is that of confident learning (Northcutt, Jiang and Chuang, 2021, "Confident learning: estimating uncertainty in dataset
labels", section 3): a model contradicts a label if it finds the other label at least as probable as it does on average for the
examples that have that label. Here it must predict the other label as well.
"""

import numpy as np


def contradicted(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Which labels each of M models contradicts, (M, B).

    The models must not have been trained on these examples.

    Args:
        labels: 0 or 1, (B,).
        probabilities: of label 1, (M, B).
    """
    other = np.where(labels == 1, 1 - probabilities, probabilities)  # of the label that the example does not have
    own = 1 - other
    thresholds = np.stack(
        [own[:, labels == label].mean(1) if (labels == label).any() else np.ones(len(own)) for label in (0, 1)]
    )
    return np.asarray((other >= thresholds[1 - labels.astype(int)].T) & (other > 0.5))
