"""What an error analysis found, in sentences. A slice is named only if it differs significantly.

Estimates have 95% intervals. The mean confidence, and the values that chance or a constant prediction would give, have none.
"""

from collections.abc import Sequence
from math import isnan

from mtbert.evaluation.calibration import Calibration, Line
from mtbert.evaluation.ordinal import Ordinal
from mtbert.evaluation.resampling import Measured
from mtbert.evaluation.slices import Contrast
from mtbert.report.error_analysis import Diagnosis, LabelNoise, TaskErrors
from mtbert.report.significance import SIGNIFICANT
from mtbert.report.text import number

NAMED = 3  # slices that a sentence names
FLAT = 0.1  # below this standard deviation, as a share of the labels' range, predictions hardly differ and a slope says little
UNTRAINED = "The run was not trained on this task."


def findings(task: TaskErrors) -> dict[str, list[str]]:
    """Sentences about each run on a task."""
    return {run: _sentences(found, task.examples) for run, found in task.runs.items()}


def agreement_finding(task: TaskErrors) -> str:
    """Whether the runs trained on a task err alike; empty without two such runs whose errors vary."""
    found = sorted(
        how.errors
        for pair, how in task.agreement.items()
        if all(task.runs[run].trained for run in pair) and not isnan(how.errors.value)
    )
    if not found:
        return ""
    above, below = sum(errors.low > 0 for errors in found), sum(errors.high < 0 for errors in found)
    scores = any(run.line for run in task.runs.values())
    constant = " Two runs that both predict nearly a constant have a correlation of about 1." if scores else ""
    return (
        f"The correlation of {'signed ' if scores else ''}errors is above 0 in {above} of {len(found)} pairs of runs trained on the "
        f"task, below 0 in {below}, and undecided in {len(found) - above - below}, by 95% intervals that are not corrected for the number "
        f"of pairs. The correlations range from {interval(found[0])} to {interval(found[-1])}.{constant}"
    )


def noise_finding(noise: LabelNoise, examples: int) -> str:
    """How many labels the runs contradict, and what the most accurate run's accuracy would be without them."""
    run, found = max(noise.accuracy.items(), key=lambda item: item[1].everything.value)
    count = len(noise.candidates)
    return (
        f"More than half of the {len(noise.runs)} runs trained on the task contradict {count:,} of {examples:,} labels "
        f"({count / examples:.1%}), and all of them contradict {noise.unanimous:,}. {run} is the most accurate "
        f"of the {len(noise.runs)} runs on these examples, which flatters it. It is right on {_share(found.everything, 1)} of all examples, "
        f"and on {_share(found.without, 1)} of those without such a label. The second number is too optimistic as an estimate: these labels "
        "were left out because runs err on them, and wrong labels that few runs contradict stay in. The runs share an encoder and "
        "training data, so what is hard for all of them looks mislabelled too; read the pairs to decide."
    )


def interval(found: Measured) -> str:
    """Such as 0.160 (0.140 to 0.180); a dash if it is undefined."""
    if isnan(found.value):
        return number(found.value)
    return f"{number(found.value)} ({number(found.low)} to {number(found.high)})".replace("-", "−")


def _sentences(found: Diagnosis, examples: int) -> list[str]:
    return [
        *([] if found.trained else [UNTRAINED]),
        *(_calibration(found.calibration, examples) if found.calibration else []),
        *(_line(found.line) if found.line else []),
        *(_ordinal(found.ordinal) if found.ordinal else []),
        *_slices(found.slices, "error rate" if found.calibration else "mean distance from the calibration line"),
    ]


def _calibration(found: Calibration, examples: int) -> list[str]:
    excess = found.excess
    if excess.low > 0 or excess.high < 0:
        direction = f"{'Over' if excess.low > 0 else 'Under'}confident by {_points(_size(excess))}"
    else:
        unclear = f"not clearly too sure or too unsure: confidence minus accuracy is {_points(excess)}"
        direction = (
            f"No miscalibration found, and {unclear}"
            if found.ece.value <= found.chance_high
            else f"Miscalibrated, but {unclear}"
        )
    return [
        f"{direction}. The mean confidence is {found.confidence:.0%}, and {found.accuracy:.0%} of predictions are right. The expected "
        f"calibration error (ECE) is {interval(found.ece)}. Chance alone would give a calibrated model {number(found.chance)} on "
        f"{examples:,} examples, and more than {number(found.chance_high)} in {SIGNIFICANT:.0%} of cases."
    ]


def _line(found: Line) -> list[str]:
    excess = found.excess
    level = (
        f"Predictions are too high by {interval(excess)} on average."
        if excess.low > 0
        else f"Predictions are too low by {interval(_size(excess))} on average."
        if excess.high < 0
        else f"Predictions are not clearly too high or too low: on average they are off by {interval(excess)}."
    )
    return [_slope(found), level]


def _slope(found: Line) -> str:
    slope = found.slope
    if isnan(slope.value):
        return "All predictions are equal."
    if found.spread < FLAT:
        return (
            f"Predictions hardly differ: their standard deviation is {found.spread:.1%} of the labels’ range. So the slope of the labels "
            "over them says little."
        )
    meaning = (
        "labels fall where predictions rise"
        if slope.high < 0
        else "the interval includes 0, so it is not clear that labels rise with predictions"
        if slope.low <= 0
        else "predictions are too far apart"
        if slope.high < 1
        else "predictions are too close together"
        if slope.low > 1
        else "the interval includes 1, the slope of calibrated predictions"
    )
    return f"Where predictions differ by 1, labels differ by {interval(slope)} on average: {meaning}."


def _ordinal(found: Ordinal) -> list[str]:
    near = "" if found.near is None else f"{_share(found.near)} of the errors are one class away. "
    return [
        f"{near}{_share(found.within_one)} of predictions are at most one class away; always predicting the most frequent class gives "
        f"{found.majority_within_one:.0%}. The mean distance is {interval(found.mae)}, against {number(found.majority_mae)}; quadratic "
        f"weighted kappa is {interval(found.kappa)}, against 0."
    ]


def _slices(found: Sequence[Contrast], measure: str) -> list[str]:
    if not found:
        return []
    differing = sorted((part for part in found if part.adjusted < SIGNIFICANT), key=lambda part: part.difference.value)
    tested = (
        f"{len(found)} {'slice' if len(found) == 1 else 'slices'} tested at {SIGNIFICANT:.0%} with Holm’s correction"
    )
    if not differing:
        return [f"On no slice does the {measure} differ significantly from the rest ({tested})."]
    worse = [part for part in reversed(differing) if part.difference.value > 0]
    better = [part for part in differing if part.difference.value <= 0]
    parts = [
        f"{word} on examples {_named(chosen)}" for word, chosen in (("higher", worse), ("lower", better)) if chosen
    ]
    return [f"Compared with the rest, the {measure} is {'; it is '.join(parts)} ({tested})."]


def _named(found: Sequence[Contrast]) -> str:
    names = "; ".join(f"{part.name}, by {interval(_size(part.difference))}" for part in found[:NAMED])
    return names if len(found) <= NAMED else f"{names}; and {len(found) - NAMED} more"


def _size(found: Measured) -> Measured:
    """A difference without its sign."""
    return found if found.value >= 0 else Measured(-found.value, -found.high, -found.low)


def _points(found: Measured) -> str:
    value, low, high = (number(100 * end, 1) for end in found)
    return f"{value} percentage points ({low} to {high})".replace("-", "−")


def _share(found: Measured, digits: int = 0) -> str:
    value, low, high = (number(100 * end, digits) for end in found)
    return number(None) if isnan(found.value) else f"{value}% ({low}% to {high}%)"
