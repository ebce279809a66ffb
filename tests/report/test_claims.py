"""The claims: what the paper's own numbers decide, what their opposite decides, and every claim on a finished graph."""

from collections.abc import Mapping
from itertools import permutations
from pathlib import Path

import pytest

from mtbert.params import load_params
from mtbert.pipeline.models import trained_with_bert_base
from mtbert.report import paper
from mtbert.report.claims import CLAIMS, ERRATA
from mtbert.report.evidence import Evidence
from mtbert.report.rules import CANNOT_TELL, HOLDS, NOT_RUN, REFUTED
from mtbert.report.statistics import Interval, Paired, Statistics
from mtbert.tasks.paper import overall
from tests.report.conftest import ROWS, edited

ROOT = Path(__file__).parent.parent.parent
SETTINGS = {name: run.model_dump() for name, run in load_params(ROOT / "params.yaml", "paper").runs.items()}
Scores = Mapping[str, Mapping[str, float]]


@pytest.fixture
def printed() -> Scores:
    """By run, the scores that Tables 1 to 3 print."""
    scores = {ROWS["table1"][row]: of._asdict() for row, (_, split, of) in paper.TABLE_1.items() if split == "dev"}
    for row, (_, sts) in paper.TABLE_2.items():
        scores.setdefault(ROWS["table2"][row], {"sts": sts})
    for row, (*_, printed_overall) in paper.TABLE_3.items():
        if printed_overall is not None:
            scores.setdefault(ROWS["table3"][row], {"overall": printed_overall})
    return scores


def sure(scores: Scores) -> Statistics:
    """Statistics with these scores and intervals of ± 0.001."""

    def about(value: float) -> Interval:
        return Interval(value, value - 0.001, value + 0.001)

    pairs = {
        (first, second): {
            metric: Paired(*about(scores[second][metric] - scores[first][metric]), 0.0, 0.0005)
            for metric in scores[first].keys() & scores[second].keys()
        }
        for first, second in permutations(scores, 2)
    }
    return Statistics(
        {run: {metric: about(value) for metric, value in of.items()} for run, of in scores.items()}, pairs
    )


def verdicts(evidence: Evidence) -> dict[str, str]:
    return {claim.sentence: claim.rule.decide(evidence).verdict for claim in CLAIMS}


@pytest.fixture
def finished(results: Path) -> Path:
    """Results with a history of ten epochs and the settings of params.yaml for every run."""
    history = "epoch,step,train_loss,train_sst,dev_sst,dev_quora,dev_sts,dev_overall\n0,0,,0.2,0.25,0.6,,\n" + "".join(
        f"{epoch},{epoch},1,0.9,{min(0.1 * epoch, 0.4)},0.7,0.5,{min(0.1 * epoch, 0.5)}\n" for epoch in range(1, 11)
    )
    for run in results.iterdir():
        (run / "history.csv").write_text(history, encoding="utf-8")
        with edited(run / "record.json") as record:
            record["settings"] = SETTINGS[run.name]
    return results


ABOUT_SCORES = (
    "only losing roughly 5%",
    "[Sequential:]",
    "[Table 1: Key Update 1]",
    "[Table 1: Key Update 2]",
    "[Table 1: Key Update 3]",
    "[Table 1: Best Performance]",
    "Fine-tuning on an ample amount",
    "Careful adjustments",
    "[(u, v, |u−v|)]",
    "[(|u+v|, |u−v|)]",
    "over 0.3",
    "largest gain for the STS task",
    "[Table 3: better than Sequential]",
    "[Table 3: better than Proportional]",
    "evenly-sized datasets",
    "the hardest one",
    "only yielding a 3% increase",
    "evenly across tasks",
    "essential to the learning of the STS",
)


def test_the_papers_own_tables_bear_out_what_it_says_of_them(finished: Path, printed: Scores) -> None:
    found = verdicts(Evidence(finished, sure(printed), trained_with_bert_base))
    for part in ABOUT_SCORES:
        (sentence,) = [sentence for sentence in found if part in sentence]
        assert found[sentence] == HOLDS, sentence
    (ranks,) = [sentence for sentence in found if "r = 4 and r = 8:" in sentence]
    assert found[ranks] == NOT_RUN, "the paper prints no score of rank 4"


def test_their_opposite_refutes_it(finished: Path, printed: Scores) -> None:
    opposite = {run: {metric: -value for metric, value in of.items()} for run, of in printed.items()}
    found = verdicts(Evidence(finished, sure(opposite), trained_with_bert_base))
    for part in set(ABOUT_SCORES) - {"only losing roughly 5%", "only yielding a 3% increase", "evenly across tasks"}:
        (sentence,) = [sentence for sentence in found if part in sentence]
        assert found[sentence] == REFUTED, sentence


def test_every_claim_is_decided_on_finished_results(finished: Path, statistics: Statistics) -> None:
    """A run that the paper does not have changes nothing, and its files are not read."""
    found = verdicts(Evidence(finished, statistics, trained_with_bert_base))
    assert set(found.values()) == {HOLDS, REFUTED, CANNOT_TELL}
    values = {**statistics.values, "mine": statistics.values["baseline"]}
    assert verdicts(Evidence(finished, Statistics(values, statistics.pairs), trained_with_bert_base)) == found


def test_without_any_run_nothing_is_decided(tmp_path: Path) -> None:
    assert set(verdicts(Evidence(tmp_path, Statistics({}, {}), trained_with_bert_base)).values()) == {NOT_RUN}


def test_quotes_are_unique_and_rules_are_in_words() -> None:
    sentences = [claim.sentence for claim in CLAIMS]
    assert len(set(sentences)) == len(sentences)
    assert all(claim.section and claim.sentence.strip() and claim.rule.text for claim in CLAIMS)


def test_the_misprints_follow_from_the_papers_tables() -> None:
    text = " ".join(ERRATA)
    for row in ("baseline", "key_update_2"):
        title, _, of = paper.TABLE_1[row]
        parts = f"{title} has {of.overall:.3f}, its parts give {overall(of.sst, of.quora, of.sts):.3f}"
        assert parts in text
    best, dora = (paper.TABLE_1[row][2].overall for row in ("best_performance", "most_efficient"))
    assert f"{best:.3f} − {dora:.3f} = {best - dora:.3f}, which is {1 - dora / best:.1%}" in text


def test_the_counts_of_bert_base_decide_whatever_encoder_is_at_hand(finished: Path, statistics: Statistics) -> None:
    """The results are of a made-up encoder with 1,000 parameters; the counts below are by the shapes of BERT-base's layers."""
    heads = 5 * 768 + 5 + 2 * (3 * 768 + 1)
    full = 109_482_240 - 768 * 769 + heads  # without a pooler
    layers = 12 * [*(4 * [(768, 768)]), (768, 3072), (3072, 768)]
    weights = sum(inputs * outputs for inputs, outputs in layers)

    def added(rank: int) -> int:
        return sum(outputs + rank * (inputs + outputs) for inputs, outputs in layers)

    evidence, dora = Evidence(finished, statistics, trained_with_bert_base), full - weights + added(16)
    found = {claim.sentence: claim.rule.decide(evidence) for claim in CLAIMS}
    percent, more, millions = 100 * dora / full, 100 * (full / dora - 1), (added(8) - added(4)) / 1e6
    for part, number, verdict in (
        ("around 20%", percent, HOLDS),
        ("roughly 300% increase", more, HOLDS),
        ("roughly 1 million", millions, REFUTED),
    ):
        (outcome,) = [of for sentence, of in found.items() if part in sentence]
        assert (outcome.number, outcome.low, outcome.high) == pytest.approx(3 * (number,)), part
        assert outcome.verdict == verdict, part
    text = " ".join(ERRATA)
    assert (
        f"then it is {percent:.1f}% and {more:.0f}%. With m, A, B and the heads alone it is {100 * (heads + added(16)) / full:.1f}%"
        in text
    )
    assert f"differ by {added(8) - added(4):,} trainable parameters" in text
