"""The verdict on each claim of the paper, as findings.json and findings.md beside the report's page.

`python -m mtbert.report.findings PROFILE FILE`, run in the project's root, renders reports/PROFILE/findings.json as Markdown.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtbert.files import atomic_write_text
from mtbert.report.claims import CLAIMS, ERRATA, STEPS, Claim
from mtbert.report.evidence import Evidence
from mtbert.report.plain import plain
from mtbert.report.rules import REFUTED, VERDICTS
from mtbert.report.seeds import Seeds, gains_over_seeds
from mtbert.report.statistics import DIGITS
from mtbert.report.text import Table, escaped, number, to_markdown

FINDINGS = "findings.json"  # in reports/PROFILE
GENERATED = "The data are generated: rules make the sentences, so no verdict below says anything about real text."
METHOD = (
    "A claim holds if the whole 95% interval lies in the range that the rule states, is refuted if the whole interval lies outside, and "
    "otherwise we cannot tell at this size. Where the paper names a size, the rule tests it; where it says "
    "'only', as of DoRA's loss, the size is a bound, so a smaller loss or none holds too. Where it speaks of a gain, the rule asks for one "
    "above 0. Intervals of scores are from paired resamples of the dev examples, those of shares are Wilson's; counts are exact; "
    "epochs have quartiles over runs in place of an interval. Intervals cover another choice of dev examples, not another seed, and are "
    "not corrected for the number of claims: of 40 claimed gains that are truly zero, one would be said to hold by chance."
)
SEEDS = (
    "The verdicts above are of one seed. Here each run of a configuration is compared with each run of the other, in overall score. Pairs "
    "that share a run are not independent."
)


def findings(
    evidence: Evidence,
    profile: str,
    *,
    generated: bool,
    seeds: Seeds,
    claims: Sequence[Claim] = CLAIMS,
    steps: Sequence[tuple[str, str]] = STEPS,
) -> dict[str, Any]:
    """Decide every claim.

    Args:
        generated: whether the data are generated, so that the verdicts say nothing about real text.
        seeds, steps: as `gains_over_seeds` takes them.

    Returns:
        What findings.json holds: profile, generated, errata, over_seeds (of each step `OverPairs`), and for each claim section, claim,
        rule, number, low, high, unit, verdict and note. Number, low and high are None where nothing was measured.
    """
    decided = []
    for claim in claims:
        found = claim.rule.decide(evidence)
        number, low, high = (None if end is None else float(f"{end:.{DIGITS}g}") for end in found[:3])
        decided.append(
            {
                "section": claim.section,
                "claim": claim.sentence,
                "rule": claim.rule.text[0].upper() + claim.rule.text[1:],
                **{"number": number, "low": low, "high": high, "unit": found.unit},
                "verdict": found.verdict,
                "note": " ".join(note for note in (found.note, claim.note) if note),
            }
        )
    return {
        "profile": profile,
        "generated": generated,
        "claims": decided,
        "over_seeds": plain(gains_over_seeds(evidence.statistics, seeds, steps), DIGITS),
        "errata": list(ERRATA),
    }


def markdown(found: Mapping[str, Any]) -> str:
    """findings.json as Markdown: how many claims hold, each with its verdict, the gains over seeds, and the misprints."""
    verdicts = Counter(claim["verdict"] for claim in found["claims"])
    holds, refuted, undecided, not_run = (verdicts[verdict] for verdict in VERDICTS)
    rows = [
        (
            claim["section"],
            claim["claim"],
            f"{claim['rule']}. {claim['note']}".strip(),
            shown(claim["number"]) + ("%" if claim["unit"] == "%" and claim["number"] is not None else ""),
            "–" if claim["low"] is None else f"{shown(claim['low'])} to {shown(claim['high'])}",
            claim["verdict"],
        )
        for claim in found["claims"]
    ]
    header = ("Section", "The paper says", "What decides it", "Number", "95% interval", "Verdict")
    bold = [(row, 5) for row in range(len(rows))]
    table = Table("Claims of the paper.", header, rows, [], (False, False, False, True, True, False), bold=bold)
    profile = found["profile"]
    made = (
        f"`dvc repro report` decides the claims from the runs of `profile: {profile}`. `python -m mtbert.report.findings {profile} FILE` "
        f"writes this page from `reports/{profile}/findings.json`. `reports/{profile}/provenance.json` names data, weights and machine."
    )
    refuted_claims = [
        f"{escaped(claim['claim'])} ({claim['section']})" for claim in found["claims"] if claim["verdict"] == REFUTED
    ]
    opening = [GENERATED] if found["generated"] else []
    errata = "\n".join(f"- {text}" for text in found["errata"])
    parts = [
        "# Which claims of the paper hold",
        *opening,
        f"{len(rows)} claims: {holds} hold, {refuted} refuted, {undecided} undecided at this size, {not_run} not run.",
        f"Refuted: {'; '.join(refuted_claims) or 'none'}.",
        METHOD,
        made,
        to_markdown(table),
    ]
    if found["over_seeds"]:
        parts += ["## Over seeds", SEEDS, to_markdown(_over_seeds(found["over_seeds"]))]
    return "\n\n".join([*parts, "## Misprints and contradictions", errata]) + "\n"


def _over_seeds(found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            f"{step['run']} over {step['over']}",
            *(str(step[name]) for name in ("pairs", "above", "below")),
            *(shown(step[name]) for name in ("smallest", "largest")),
        )
        for step in found
    ]
    header = ("Gain of", "Pairs of runs", "Interval above 0", "Interval below 0", "Smallest gain", "Largest gain")
    return Table("Gains over seeds.", header, rows, [], (False, *[True] * 5))


def shown(value: float | None) -> str:
    """Three decimals for a score, fewer for what is larger."""
    return number(value, 3 if value is None or abs(value) < 1 else 1 if abs(value) < 1000 else 0).replace("-", "−")


def main() -> None:
    """Render reports/PROFILE/findings.json as Markdown."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("profile", metavar="PROFILE", help="a profile that has a report, such as course")
    parser.add_argument("file", metavar="FILE", type=Path, help="the Markdown file to write, such as docs/findings.md")
    arguments = parser.parse_args()
    path = Path("reports", arguments.profile, FINDINGS)
    try:
        text = markdown(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        sys.exit(f"error: {path}: not found; set `profile: {arguments.profile}` in params.yaml, then run `dvc repro`")
    except (OSError, KeyError, TypeError, ValueError) as error:
        sys.exit(f"error: {path}: cannot be read ({error!r}); run `dvc repro --force --single-item report`")
    atomic_write_text(arguments.file, text)


if __name__ == "__main__":
    main()
