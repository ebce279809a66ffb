"""The generated data: the same bytes everywhere, the documented labels, no leakage, word order matters."""

import hashlib
import json
import re
from collections import Counter
from functools import cache

import pytest

from mtbert.sample.generate import SampleRow, generate
from mtbert.sample.rng import PortableRandom
from mtbert.sample.sentiment import level
from mtbert.tasks.paper import TASKS
from mtbert.tasks.task import SPLITS

Rows = dict[tuple[str, str], list[SampleRow]]


def sizes(train: int, dev: int) -> dict[str, dict[str, int]]:
    return {task: {"train": train, "dev": dev, "test": dev} for task in TASKS}


@cache
def sample(noise: float = 0.0) -> Rows:
    return generate(11711, sizes(1500, 300), noise)


def test_the_bytes_are_the_same_on_every_machine() -> None:
    rows = generate(7, sizes(40, 10), 0.1)
    text = json.dumps([rows[task, split] for task in TASKS for split in SPLITS])
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "58c3ac04747880da690088d348c842634d5b887dd84fd4768aff3d4d1e04addc"
    )
    assert generate(7, sizes(40, 10), 0.1) == rows
    assert generate(8, sizes(40, 10), 0.1) != rows


def test_random_choices_follow_numpys_guaranteed_stream() -> None:
    rng = PortableRandom(1, 2)
    assert [rng.below(1000) for _ in range(5)] == [573, 251, 905, 517, 952]
    assert PortableRandom(1, 2).hex_id() == "92d918eb7d90ae3e4050204ba"


def test_splits_do_not_depend_on_each_others_size() -> None:
    small, large = generate(3, sizes(20, 10), 0.1), generate(3, sizes(50, 10), 0.1)
    for task in TASKS:
        assert large[task, "train"][:20] == small[task, "train"]
        assert large[task, "dev"] == small[task, "dev"]
        assert small[task, "dev"] != small[task, "test"]


def test_label_distributions() -> None:
    rows = sample()
    for split in SPLITS:
        sst = Counter(row.label for row in rows["sst", split])
        total = len(rows["sst", split])
        for label, share in zip("01234", (0.13, 0.26, 0.19, 0.27, 0.15), strict=True):
            assert abs(sst[label] / total - share) < 0.08
        quora = Counter(row.label for row in rows["quora", split])
        assert set(quora) == {"0.0", "1.0"}
        assert abs(quora["1.0"] / total - 0.35) < 0.08
        sts = [float(row.label) for row in rows["sts", split]]
        assert min(sts) == 0.0 and max(sts) == 5.0
        assert all(abs(value * 5 - round(value * 5)) < 1e-9 for value in sts)
        # Eq. 1 splits at 2.5: both sides occur, and most negated scenes (5 - 2.2) are on the upper one.
        assert 0.1 < sum(value < 2.5 for value in sts) / total < 0.4


@pytest.mark.parametrize("task", list(TASKS))
def test_label_noise_moves_that_share_of_labels_by_one_and_changes_nothing_else(task: str) -> None:
    clean, noisy = sample()[task, "train"], sample(0.2)[task, "train"]
    assert [(row.id, row.texts) for row in noisy] == [(row.id, row.texts) for row in clean]
    moves = [round(abs(float(a.label) - float(b.label)), 6) for a, b in zip(clean, noisy, strict=True)]
    assert set(moves) == {0.0, 1.0}
    assert abs(sum(moves) / len(moves) - 0.2) < 0.04
    assert all(TASKS[task].low <= float(row.label) <= TASKS[task].high for row in noisy)


def test_rows_are_distinct_and_do_not_leak() -> None:
    rows = sample()
    ids = [row.id for part in rows.values() for row in part]
    assert len(set(ids)) == len(ids)
    assert all(len(row_id) == 25 and int(row_id, 16) >= 0 for row_id in ids)
    few = generate(11711, sizes(360, 300), 0.0)  # the more rows, the more of them coincide
    for task in TASKS:
        parts = {split: {tuple(sorted(row.texts)) for row in few[task, split]} for split in SPLITS}
        assert all(len(parts[split]) >= 0.99 * len(few[task, split]) for split in SPLITS)
        assert len(parts["train"] & (parts["dev"] | parts["test"])) < 0.05 * 600


def test_texts_are_short_plain_sentences() -> None:
    for part in sample().values():
        texts = [text for row in part for text in row.texts]
        lengths = [len(text.split()) for text in texts]
        assert 6 <= sum(lengths) / len(lengths) <= 10 and max(lengths) <= 20
        assert all(text.isascii() and text == " ".join(text.split()) and "{" not in text for text in texts)
        assert all(len(set(row.texts)) == len(row.texts) for row in part)


def test_the_same_words_in_another_order_differ() -> None:
    def words(text: str) -> list[str]:
        return sorted(re.findall(r"\w+", text.lower()))

    rows = generate(11711, sizes(6000, 8) | {"sst": dict.fromkeys(SPLITS, 0)}, 0.0)
    swapped = [row for row in rows["quora", "train"] if words(row.texts[0]) == words(row.texts[1])]
    assert len(swapped) >= 5 and {row.label for row in swapped} == {"0.0"}
    reordered = [float(row.label) for row in rows["sts", "train"] if words(row.texts[0]) == words(row.texts[1])]
    assert any(value <= 3.6 for value in reordered) and any(value == 5 for value in reordered)


def test_one_word_in_one_sentence_decides_the_label() -> None:
    def only_one(row: SampleRow, word: str) -> bool:
        return sum(word in text.split() for text in row.texts) == 1

    rows = sample()
    narrowed = [row for row in rows["quora", "train"] if only_one(row, "without")]
    assert {row.label for row in narrowed} == {"0.0"} and len(narrowed) > 0.3 * len(rows["quora", "train"])
    negated = [float(row.label) for row in rows["sts", "train"] if only_one(row, "not")]
    others = [float(row.label) for row in rows["sts", "train"] if not only_one(row, "not")]
    assert max(negated) <= 3.2 and sum(others) / len(others) > 3


def test_levels_of_values() -> None:
    assert [level(value) for value in (-2, -1, -0.6, -0.4, 0, 0.45, 0.6, 1.2, 1.6, 2)] == [0, 1, 1, 2, 2, 2, 3, 3, 4, 4]
