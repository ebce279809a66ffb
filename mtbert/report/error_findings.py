"""What an error analysis found, in sentences. Each has its 95% interval, and a slice is named only if it differs significantly."""

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
UNTRAINED = "The run was not trained on this task."


def findings(task: TaskErrors) -> dict[str, list[str]]:
    """Sentences about each run on a task."""
    return {run: _sentences(found, task.examples) for run, found in task.runs.items()}


def agreement_finding(task: TaskErrors) -> str:
    """Whether runs err on the same examples; empty without two runs whose errors vary."""
    found = sorted(how.errors for how in task.agreement.values() if not isnan(how.errors.value))
    if not found:
        return ""
    together = sum(errors.low > 0 for errors in found)
    return (
        f"In {together} of {len(found)} pairs of all runs, errors tend to be on the same examples: the 95% interval of their correlation "
        f"is above 0. The correlations range from {interval(found[0])} to {interval(found[-1])}."
    )


def noise_finding(noise: LabelNoise, examples: int) -> str:
    """How many labels the runs contradict, and what the most accurate run's accuracy would be without them."""
    run, (everything, without) = max(noise.accuracy.items(), key=lambda item: item[1][0])
    count = len(noise.candidates)
    return (
        f"More than half of the {len(noise.runs)} runs trained on the task contradict {count:,} of {examples:,} labels "
        f"({count / examples:.1%}), and all of them contradict {noise.unanimous:,}. {run} is right on {everything:.1%} of all "
        f"examples, and on {number(100 * without, 1)}% of those without such a label. The second number is an upper bound: these labels "
        "were chosen because runs err on them. The runs share an encoder and training data, so what is hard for all of them looks "
        "mislabelled too; only reading the pairs tells."
    )


def interval(found: Measured) -> str:
    """Such as 0.160 (0.140 to 0.180); a dash if it is undefined."""
    if isnan(found.value):
        return number(None)
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
    by = "by {:.0f} percentage points ({:.0f} to {:.0f})".format(*(100 * end for end in _size(found.excess)))
    direction = (
        "No miscalibration beyond chance"
        if found.ece.value <= found.chance_high
        else f"Overconfident {by}"
        if found.excess.low > 0
        else f"Underconfident {by}"
        if found.excess.high < 0
        else "Miscalibrated, but neither too sure nor too unsure on average"
    )
    return [
        f"{direction}: the mean confidence is {found.confidence:.0%}, and {found.accuracy:.0%} of predictions are right. The expected "
        f"calibration error (ECE) is {interval(found.ece)}. Chance alone would give a calibrated model {number(found.chance)} on "
        f"{examples:,} examples, and more than {number(found.chance_high)} in {SIGNIFICANT:.0%} of cases."
    ]


def _line(found: Line) -> list[str]:
    if isnan(found.slope.value):
        return ["All predictions are equal."]
    spread = (
        "predictions are too far apart"
        if found.slope.high < 1
        else "predictions are too close together"
        if found.slope.low > 1
        else "the interval includes 1, the slope of calibrated predictions"
    )
    level = (
        "Predictions are too high, on average"
        if found.excess.low > 0
        else "Predictions are too low, on average"
        if found.excess.high < 0
        else "Predictions are neither clearly too high nor too low: on average they are off"
    )
    return [
        f"Where predictions differ by 1, labels differ by {interval(found.slope)} on average: {spread}.",
        f"{level} by {interval(_size(found.excess))}.",
    ]


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
    worse = [part for part in reversed(differing) if part.difference.value > 0][:NAMED]
    better = [part for part in differing if part.difference.value <= 0][:NAMED]
    parts = [
        f"{word} on examples {'; '.join(f'{part.name}, by {interval(_size(part.difference))}' for part in chosen)}"
        for word, chosen in (("higher", worse), ("lower", better))
        if chosen
    ]
    return [f"Compared with the rest, the {measure} is {'; it is '.join(parts)} ({tested})."]


def _size(found: Measured) -> Measured:
    """A difference without its sign."""
    return found if found.value >= 0 else Measured(-found.value, -found.high, -found.low)


def _share(found: Measured) -> str:
    return f"{found.value:.0%} ({found.low:.0%} to {found.high:.0%})"
