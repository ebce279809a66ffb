"""Errors on slices of the examples: by length, by the overlap of a pair's words, by negation and by numbers.

A slice says where errors are, not why: pairs of much overlap, for example, are also more often duplicates. Shapes: B examples.
"""

import re
from collections.abc import Sequence
from math import hypot
from typing import NamedTuple

import numpy as np
from scipy.stats import fisher_exact, ttest_ind

from mtbert.evaluation.resampling import LEVEL, Measured, holm, mean, wilson

LEAST = 30  # examples in a slice and outside of it
WORD = re.compile(r"[^\W_]+(?:['’.,][^\W_]+)*")  # `don't` and `1,000` are one word each, as is the treebank's `n't`
NEGATIONS = frozenset(
    {"not", "n't", "no", "never", "none", "nobody", "nothing", "nowhere", "neither", "nor", "without", "cannot"}
    | {"dont", "doesnt", "didnt", "isnt", "arent", "wasnt", "werent", "hasnt", "havent", "cant", "wont"}
    | {"wouldnt", "shouldnt", "couldnt"}  # as many write in questions, without an apostrophe
)


class Slice(NamedTuple):
    """Examples that share a property: its kind, a name that completes "examples ...", and which examples are in it, (B,)."""

    kind: str
    name: str
    inside: np.ndarray


class Contrast(NamedTuple):
    """A slice's errors compared with those of all other examples.

    Attributes:
        error: the share of wrong labels, or the mean absolute error, within the slice.
        difference: the slice's error minus that of the rest.
        p: two-sided: Fisher's exact test for labels, else Welch's.
        adjusted: p after Holm's correction over the slices.
    """

    kind: str
    name: str
    examples: int
    error: Measured
    difference: Measured
    p: float
    adjusted: float


def slices(texts: Sequence[Sequence[str]]) -> list[Slice]:
    """The slices of examples.

    Args:
        texts: B sentences, for each of an example's one or two.
    """
    words = [[WORD.findall(text.lower()) for text in column] for column in texts]
    lengths = np.array([sum(map(len, example)) for example in zip(*words, strict=True)], dtype=float)
    found = _quarters("length", lengths, "of {} words", "{:.0f}")
    negated = np.array([[any(map(_negates, sentence)) for sentence in column] for column in words])
    if len(words) == 1:
        return [*found, Slice("negation", "with a negation", negated[0])]
    overlap = np.array([_jaccard(set(first), set(second)) for first, second in zip(*words, strict=True)])
    numbers = [[{word for word in sentence if word[0].isdigit()} for sentence in column] for column in words]
    return [
        *found,
        *_quarters("overlap", overlap, "with a word overlap of {}", "{:.2f}"),
        Slice("negation", "with a negation in one sentence", negated[0] ^ negated[1]),
        Slice("negation", "with a negation in both sentences", negated[0] & negated[1]),
        Slice("numbers", "with different numbers", np.array([a != b for a, b in zip(*numbers, strict=True)])),
    ]


def contrasts(errors: np.ndarray, parts: Sequence[Slice]) -> list[Contrast]:
    """Each slice compared with the rest; slices with fewer than `LEAST` examples inside or outside are left out.

    Args:
        errors: whether each label is wrong, (B,) bool, or the size of each error, (B,) float.
    """
    compare = _shares if errors.dtype == bool else _means
    if errors.dtype != bool and not np.ptp(errors):
        return []  # Welch's test is undefined
    kept = [part for part in parts if min(part.inside.sum(), (~part.inside).sum()) >= LEAST]
    found = [compare(errors[part.inside], errors[~part.inside]) for part in kept]
    adjusted = holm([p for _, _, p in found])
    return [
        Contrast(part.kind, part.name, int(part.inside.sum()), *compared, after)
        for part, compared, after in zip(kept, found, adjusted, strict=True)
    ]


def _shares(inside: np.ndarray, outside: np.ndarray) -> tuple[Measured, Measured, float]:
    """The share inside, its difference with Newcombe's interval (1998, method 10), and Fisher's p."""
    hits, others = int(inside.sum()), int(outside.sum())
    one, rest = wilson(hits, len(inside)), wilson(others, len(outside))
    value = one.value - rest.value
    low = value - hypot(one.value - one.low, rest.high - rest.value)
    high = value + hypot(one.high - one.value, rest.value - rest.low)
    table = [[hits, len(inside) - hits], [others, len(outside) - others]]
    return one, Measured(value, low, high), float(fisher_exact(table).pvalue)


def _means(inside: np.ndarray, outside: np.ndarray) -> tuple[Measured, Measured, float]:
    """The mean inside and its difference, both with Student's interval, and Welch's p."""
    test = ttest_ind(inside, outside, equal_var=False)
    ends = test.confidence_interval(LEVEL)
    difference = Measured(float(inside.mean() - outside.mean()), float(ends.low), float(ends.high))
    return mean(inside), difference, float(test.pvalue)


def _quarters(kind: str, values: np.ndarray, name: str, number: str) -> list[Slice]:
    """Four slices of about equal size by rising value; fewer where many values are equal.

    Args:
        name, number: formats of a slice's name and of the ends of its range.
    """
    part = np.searchsorted(np.unique(np.quantile(values, [0.25, 0.5, 0.75])), values, side="left")
    found = []
    for place in np.unique(part):
        ends = (number.format(end) for end in (values[part == place].min(), values[part == place].max()))
        found.append(Slice(kind, name.format(" to ".join(dict.fromkeys(ends))), part == place))
    return found


def _negates(word: str) -> bool:
    return word in NEGATIONS or word.endswith(("n't", "n’t"))


def _jaccard(first: set[str], second: set[str]) -> float:
    """The share of the words of both sentences that are in each of them; 1 if neither has a word."""
    return len(first & second) / len(first | second) if first | second else 1.0
