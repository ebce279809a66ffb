"""The embedded default data: generated English for the three tasks, a pure function of its arguments.

It replaces the course's files where nothing can be downloaded. It is easy enough that a small encoder learns every task in a
hundred short steps, and needs composition and a comparison of the two sentences of a pair. Scores on it say nothing about
real English.
"""

from collections.abc import Mapping
from typing import NamedTuple

from mtbert.sample.paraphrase import paraphrase_row
from mtbert.sample.rng import PortableRandom
from mtbert.sample.sentiment import sentiment_row
from mtbert.sample.similarity import similarity_row
from mtbert.tasks.paper import TASKS
from mtbert.tasks.task import SPLITS


class SampleRow(NamedTuple):
    """One generated row; `texts` holds one or two sentences, `label` is in the course's format."""

    id: str
    texts: tuple[str, ...]
    label: str


def generate(
    seed: int, sizes: Mapping[str, Mapping[str, int]], label_noise: float
) -> dict[tuple[str, str], list[SampleRow]]:
    """All rows, by (task, split); the same bytes on every machine.

    Every split has its own random stream, so that the size of one does not change another, and a longer split starts with the
    rows of a shorter one. The sentences do not depend on `label_noise`. All splits have the same distribution; within a
    split rows are unique.

    Args:
        seed: non-negative.
        sizes: rows by task and split, such as sizes["sst"]["train"].
        label_noise: share of labels, in every split, that are changed: by a level up or down (sst), to the other answer
            (quora), by a whole point up or down (sts).
    """
    return {
        (task, split): _rows(
            PortableRandom(seed, number, part),
            PortableRandom(seed, number, part, 1),
            task,
            sizes[task][split],
            label_noise,
        )
        for number, task in enumerate(TASKS)
        for part, split in enumerate(SPLITS)
    }


def _rows(rng: PortableRandom, noise: PortableRandom, task: str, size: int, label_noise: float) -> list[SampleRow]:
    rows: list[SampleRow] = []
    seen: set[tuple[str, ...]] = set()
    while len(rows) < size:
        texts, label = _row(rng, task)
        if texts in seen:
            continue
        seen.add(texts)
        if noise.chance(100 * label_noise):
            label = _neighbour(noise, task, label)
        rows.append(SampleRow(rng.hex_id(), texts, str(int(label)) if task == "sst" else str(label)))
    return rows


def _row(rng: PortableRandom, task: str) -> tuple[tuple[str, ...], float]:
    if task == "sst":
        text, level = sentiment_row(rng)
        return (text,), level
    if task == "quora":
        pair, duplicate = paraphrase_row(rng)
        return pair, float(duplicate)
    return similarity_row(rng)


def _neighbour(noise: PortableRandom, task: str, label: float) -> float:
    if task == "quora":
        return 1.0 - label
    low, high = TASKS[task].low, TASKS[task].high
    up = label - 1 < low or (label + 1 <= high and noise.chance(50))
    return round(label + (1 if up else -1), 1)
