"""The statistics of evaluated runs: what they are computed from, that they do not depend on other runs, and their file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbert.errors import MtbertError
from mtbert.evaluation.metrics import METRICS
from mtbert.evaluation.resampling import mcnemar
from mtbert.report import results
from mtbert.report.measure import current_statistics, measure
from mtbert.report.significance import certainty
from mtbert.report.statistics import UNDEFINED, OverSeeds, read_statistics, write_statistics
from mtbert.tabular import write_csv
from mtbert.tasks.paper import METRIC_OF, overall_of
from tests.report.conftest import write_run

ROWS = 150
TOPICS = np.array(["arts", "sports", "world"])
Evaluated = Callable[..., None]


@pytest.fixture
def evaluated(tmp_path: Path) -> Evaluated:
    """evaluated(RUN, seed, noise): results of the paper's tasks and of a declared one, as `evaluate` writes them.

    With the same seed and less noise, the errors are some of the same ones.
    """

    def write(run: str, seed: int, noise: float = 0.4, *, examples: int = 0, constant: bool = False) -> None:
        truth, rng = np.random.default_rng(examples), np.random.default_rng([seed, 1])
        dev: dict[str, Any] = {}
        for task, classes in (("sst", 5), ("quora", 2), ("topic", 3), ("sts", 0)):
            labels: Any = truth.integers(0, classes, ROWS) if classes else truth.uniform(0, 5, ROWS).round(1)
            guesses: Any = labels.copy()
            if classes:
                wrong = rng.random(ROWS) < noise
                guesses[wrong] = rng.integers(0, classes, ROWS)[wrong]
            else:
                guesses = np.full(ROWS, 2.5) if constant else labels + noise * rng.normal(size=ROWS)
            metric = METRIC_OF.get(task, "accuracy")
            value = None if constant and not classes else METRICS[metric](labels, guesses)
            dev[task] = {metric: value, "n": ROWS}
            names = (
                (TOPICS[labels], TOPICS[guesses]) if task == "topic" else (labels, [f"{value:g}" for value in guesses])
            )
            cells = zip(map(str, range(ROWS)), *names, [0.5] * ROWS, strict=True)
            write_csv(tmp_path / run / f"examples/{task}-dev.csv", ["id", "label", "prediction", "score"], cells)
        if (score := overall_of({task: dev[task][metric] for task, metric in METRIC_OF.items()})) is not None:
            dev["overall"] = score
        write_run(tmp_path / run, dev=dev)

    return write


def test_scores_and_differences_of_every_metric(evaluated: Evaluated, tmp_path: Path) -> None:
    evaluated("good", 1, 0.2)
    evaluated("bad", 2, 0.6)
    found = measure(tmp_path, ["good", "bad"])
    for metric in ("overall", "sst", "quora", "topic", "sts"):
        good, bad = (found.metric(run, metric) for run in ("good", "bad"))
        assert bad.low < bad.value < bad.high < good.high
        difference = found.difference("bad", "good", metric)
        assert difference.value == pytest.approx(good.value - bad.value)
        assert 0 < difference.low < difference.value < difference.high
        assert difference.p < 0.05
        assert found.difference("good", "bad", metric)[:3] == tuple(-difference[end] for end in (0, 2, 1))
        assert found.adjusted(["good", "bad"], metric) == {("good", "bad"): difference.p}, "there is one pair"
        assert 0.5 < found.detectable("good", "bad", metric) / (difference.high - difference.low) < 1
    tables = [(tmp_path / run / "examples/sst-dev.csv").read_text().split() for run in ("good", "bad")]
    right = [np.array([row.split(",")[1] == row.split(",")[2] for row in table[1:]]) for table in tables]
    assert found.difference("good", "bad", "sst").p == pytest.approx(mcnemar(*right))


def test_the_resamples_of_two_runs_are_paired(evaluated: Evaluated, tmp_path: Path) -> None:
    """Most errors are the same ones, so the difference varies less than that of two independent runs."""
    evaluated("good", 1, 0.2)
    evaluated("near", 1, 0.25)
    found = measure(tmp_path, ["good", "near"])
    for metric in ("overall", "sst", "quora", "topic", "sts"):
        good, near = (found.metric(run, metric) for run in ("good", "near"))
        difference = found.difference("good", "near", metric)
        unpaired = np.hypot(good.high - good.low, near.high - near.low)
        assert 0 < difference.high - difference.low < 0.8 * unpaired


def test_a_pair_is_the_same_whatever_other_runs_there_are(evaluated: Evaluated, tmp_path: Path) -> None:
    for seed, run in enumerate("abc"):
        evaluated(run, seed, 0.3 + seed / 10)
    three, two = measure(tmp_path, "abc"), measure(tmp_path, "ac")
    assert three.values["c"] == two.values["c"]
    assert three.pairs["a", "c"] == two.pairs["a", "c"]


def test_an_undefined_correlation_and_a_run_against_itself(evaluated: Evaluated, tmp_path: Path) -> None:
    evaluated("a", 1)
    evaluated("b", 1)
    evaluated("flat", 2, constant=True)
    found = measure(tmp_path, ["a", "b", "flat"])
    assert found.metric("flat", "sts") == found.metric("flat", "overall") == UNDEFINED
    assert set(found.difference("a", "flat", "sts")) == set(found.difference("flat", "a", "overall")) == {None}
    assert found.difference("a", "flat", "sst").value is not None
    same = found.difference("a", "b", "sts")
    assert (*same[:3], same.p, found.detectable("a", "b", "sts")) == (0, 0, 0, 1, None)
    write_statistics(tmp_path / "s.json", found)
    assert "NaN" not in (tmp_path / "s.json").read_text()
    notes = certainty(found, {"a": "A", "b": "B", "flat": "Flat"}, {"overall": "Overall"})
    assert "Overall 0 of 1. Tested at 5%, by bootstrap, " in notes[1]
    assert len(notes) == 2, "no difference can be detected where there is none to measure it by"


def test_other_examples_are_an_error(evaluated: Evaluated, tmp_path: Path) -> None:
    evaluated("a", 1)
    evaluated("b", 2, examples=7)
    with pytest.raises(MtbertError, match=r"b: its dev examples of sst are not those of .*a, .*evaluate@a evaluate@b`"):
        measure(tmp_path, ["a", "b"])


def test_seeds_share_the_variance_with_the_choice_of_examples(evaluated: Evaluated, tmp_path: Path) -> None:
    for seed in range(5):
        evaluated(f"seed_{seed}", 1, 0.3 + seed / 20)  # their errors are partly the same
    others = [f"seed_{seed}" for seed in range(1, 5)]
    found = measure(tmp_path, ["seed_0", *others], {"seed_0": others})
    over = found.seeds["seed_0"]["sst"]
    values = [found.metric(run, "sst").value for run in ("seed_0", *others)]
    assert (over.runs, over.mean, over.sd) == (5, pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    tables = [results.examples(tmp_path, run, "sst") for run in ("seed_0", *others)]
    covariances = np.cov([table["label"] == table["prediction"] for table in tables])
    of_examples = covariances[~np.eye(5, dtype=bool)].mean() / ROWS
    assert over.share == pytest.approx(over.sd**2 / (over.sd**2 + of_examples), rel=0.05)
    notes = certainty(found, {"seed_0": "Mine"}, {"sst": "Sentiment"})
    mean, sd, share = f"{over.mean:.3f}", f"{over.sd:.3f}", f"({over.share:.0%})"
    assert (
        f"Mine over 5 seeds, on average: Sentiment {mean} with standard deviation {sd} {share}. In brackets"
        in notes[-1]
    )
    few = measure(tmp_path, ["seed_0", "seed_1", "seed_2", "seed_3"], {"seed_0": others[:3]})
    mean, sd = (f"{value:.3f}" for value in few.seeds["seed_0"]["sst"][1:3])
    (note,) = certainty(few, {"seed_0": "Mine"}, {"sst": "Sentiment"})[1:]
    assert note == f"Mine over 4 seeds, on average: Sentiment {mean} with standard deviation {sd}.", (
        "too few for a share"
    )
    alone = measure(tmp_path, ["seed_0"], {"seed_0": []})
    assert alone.seeds["seed_0"]["sst"] == OverSeeds(1, None, None, None)
    assert len(certainty(alone, {"seed_0": "Mine"}, {"sst": "Sentiment"})) == 1


def test_the_file_gives_the_statistics_back_in_the_same_bytes(evaluated: Evaluated, tmp_path: Path) -> None:
    for seed, run in enumerate("abc"):
        evaluated(run, seed)
    path = tmp_path / "statistics.json"
    found = measure(tmp_path, "abc", {"a": ["b"]})
    write_statistics(path, found)
    back, first = read_statistics(path), path.read_bytes()
    assert (back.resamples, list(back.pairs)) == (found.resamples, list(found.pairs))
    for metric in ("overall", "topic"):
        assert back.metric("c", metric) == pytest.approx(found.metric("c", metric), rel=1e-5)
        before, after = (about.difference("c", "a", metric) for about in (found, back))
        assert after == pytest.approx(before, rel=1e-5, abs=1e-9)
        assert back.adjusted("abc", metric) == pytest.approx(found.adjusted("abc", metric), rel=1e-5, abs=1e-9)
        assert back.seeds["a"][metric] == pytest.approx(found.seeds["a"][metric], rel=1e-5)
    write_statistics(path, measure(tmp_path, "abc", {"a": ["b"]}))
    assert path.read_bytes() == first
    for content in ("{", "[]", '{"runs": {}}', '{"runs": {"a": {"sst": {"valu": 1}}}, "pairs": [], "seeds": {}}'):
        path.write_text(content)
        with pytest.raises(MtbertError, match="run `dvc repro --force --single-item statistics`"):
            read_statistics(path)
    path.unlink()
    with pytest.raises(MtbertError, match="not found; run `dvc repro statistics`"):
        read_statistics(path)


def test_statistics_of_earlier_results_are_an_error(evaluated: Evaluated, tmp_path: Path) -> None:
    for seed, run in enumerate("ab"):
        evaluated(run, seed)
    path = tmp_path / "statistics.json"
    write_statistics(path, measure(tmp_path, "ab"))
    assert current_statistics(path, tmp_path, "ab") == read_statistics(path)
    evaluated("b", 5)
    assert current_statistics(path, tmp_path, "a")
    evaluated("c", 6)
    for run in "bc":
        with pytest.raises(MtbertError, match=f"other results than those of {run} here; run `dvc repro statistics`"):
            current_statistics(path, tmp_path, run)


def test_few_pairs_are_named(evaluated: Evaluated, tmp_path: Path) -> None:
    for seed, (run, noise) in enumerate({"a": 0.2, "b": 0.2, "c": 0.9}.items()):
        evaluated(run, seed, noise)
    titles, columns = {"a": "A", "b": "B", "c": "C"}, {"sst": "Sentiment"}
    assert "Sentiment 2 of 3 (all but A–B)." in certainty(measure(tmp_path, "abc"), titles, columns)[1]
    pair = {run: titles[run] for run in "ac"}
    assert "Sentiment 1 of 1. " in certainty(measure(tmp_path, "ac"), pair, columns)[1]
