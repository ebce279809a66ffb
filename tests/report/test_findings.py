"""findings.json and its Markdown."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtbert.report.claims import Claim
from mtbert.report.evidence import Evidence
from mtbert.report.findings import findings, main, markdown
from mtbert.report.quantities import gain
from mtbert.report.rules import above
from mtbert.report.statistics import Interval, Paired, Statistics

CLAIMS = [
    Claim("1", "*a* is | better than b <b>", above(gain("a", "b"))),
    Claim("2", "a is much better", above(gain("a", "b"), 0.5), "Much: 0.5."),
    Claim("2", "a is better than c", above(gain("a", "c"))),
    Claim("3", "nobody knows", above(gain("moon", "a"))),
]
OF: dict[str, Any] = {"generated": False, "seeds": {}, "claims": CLAIMS, "steps": [("a", "b")]}


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    score = Interval(0.5, 0.4, 0.6)
    pairs = {("b", "a"): {"overall": Paired(0.1234567, 0.05, 0.2, 0.01, 0.03)}}
    return Evidence(tmp_path, Statistics({run: {"overall": score} for run in "ab"}, pairs), len)


def test_findings_have_the_number_and_the_verdict_of_each_claim(evidence: Evidence) -> None:
    found = findings(evidence, "course", **OF)
    assert (found["profile"], found["generated"]) == ("course", False)
    assert found["claims"][1] == {
        "section": "2",
        "claim": "a is much better",
        "rule": "Gain in overall score of a over b is above 0.5",
        "number": 0.123457,
        "low": 0.05,
        "high": 0.2,
        "unit": "score",
        "verdict": "refuted",
        "note": "Much: 0.5.",
    }
    assert [claim["verdict"] for claim in found["claims"]] == ["holds", "refuted", "not run", "not run"]
    assert found["claims"][2]["note"] == "There are no results of c."
    assert found == json.loads(json.dumps(found, allow_nan=False))


def test_markdown_counts_and_lists_the_verdicts(evidence: Evidence) -> None:
    found = findings(evidence, "course", **OF)
    text = markdown(found)
    assert (
        "4 claims: 1 hold, 1 refuted, 0 undecided at this size, 2 not run.\n\nRefuted: a is much better (2).\n" in text
    )
    assert "Refuted: none.\n" in markdown(findings(evidence, "course", **OF | {"claims": CLAIMS[:1]}))
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[2] == (
        r"| 1 | \*a\* is \| better than b &lt;b&gt; | Gain in overall score of a over b is above 0. | 0.123 | 0.050 to 0.200 | "
        "**holds** |"
    )
    assert (
        lines[-1]
        == "| 3 | nobody knows | Gain in overall score of moon over a is above 0. There are no results of moon. | – | – | **not run** |"
    )
    assert all(erratum in text for erratum in found["errata"])
    assert "generated" not in text


def test_gains_over_seeds_stand_below_the_verdicts(evidence: Evidence) -> None:
    assert "Over seeds" not in markdown(findings(evidence, "course", **OF)), "there is one seed"
    score, low = Interval(0.5, 0.4, 0.6), Paired(-0.0312, -0.05, -0.01, 0.01, 0.01)
    pairs = {**evidence.statistics.pairs, ("b", "a_2"): {"overall": low}}
    seeded = replace(evidence, statistics=Statistics({run: {"overall": score} for run in ("a", "b", "a_2")}, pairs))
    found = findings(seeded, "course", **OF | {"seeds": {"a": ["a_2"]}})
    text = markdown(json.loads(json.dumps(found)))
    assert "| a over b | 2 | 1 | 1 | −0.031 | 0.123 |" in text
    assert (
        text.index("**not run**")
        < text.index("## Over seeds")
        < text.index("| a over b |")
        < text.index("## Misprints")
    )


def test_generated_data_are_named_before_any_verdict(evidence: Evidence) -> None:
    text = markdown(findings(evidence, "sample", **OF | {"generated": True}))
    assert text.index("The data are generated") < text.index("4 claims:")


def test_the_command_renders_a_report(evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["findings", "course", "docs/findings.md"])
    with pytest.raises(
        SystemExit, match=r"reports/course/findings.json: not found; set `profile: course` in params.yaml"
    ):
        main()
    path = tmp_path / "reports/course/findings.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"claims": []', encoding="utf-8")
    with pytest.raises(SystemExit, match=r"cannot be read .*single-item report`"):
        main()
    assert not Path("docs").exists(), "nothing half-written"
    found = findings(evidence, "course", **OF)
    path.write_text(json.dumps(found), encoding="utf-8")
    main()
    assert Path("docs/findings.md").read_text(encoding="utf-8") == markdown(found)
