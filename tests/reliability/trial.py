"""A figure's result, and the class that counts its trials."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One figure's outcome.

    Attributes:
        figure: its number.
        trials, passed: the number of trials, and of those that met the target.
        target: the target in words.
        needed: the share of trials that must pass, 1 unless the target says otherwise.
        controls, caught: the number of planted bugs, and of those that the trial noticed; all must be.
        seed: seeds all random choices.
        seconds: how long it took.
        note: what was skipped on this machine and why, and measured values.
        failures: the first trials and controls that failed.
    """

    figure: int
    title: str
    trials: int
    passed: int
    target: str
    controls: int
    caught: int
    seed: int
    seconds: float = 0.0
    note: str = ""
    needed: float = 1.0
    failures: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether enough trials passed and every planted bug was caught; False without trials or controls."""
        enough = self.trials > 0 and self.passed >= self.needed * self.trials
        return enough and self.controls > 0 and self.caught == self.controls


class Tally:
    """Counts one figure's trials and controls as they are made."""

    LISTED = 20

    def __init__(self, figure: int, title: str, target: str, seed: int, needed: float = 1.0) -> None:
        self._about: dict[str, Any] = {"figure": figure, "title": title, "target": target, "seed": seed}
        self._about["needed"] = needed
        self.trials = self.passed = self.controls = self.caught = 0
        self.failures: list[str] = []

    def trial(self, ok: bool, what: str) -> None:
        """Count a trial; `what` describes it if it failed."""
        self.trials += 1
        self.passed += ok
        if not ok:
            self._fail(what)

    def control(self, caught: bool, what: str) -> None:
        """Count a planted bug, and whether the trial noticed it."""
        self.controls += 1
        self.caught += caught
        if not caught:
            self._fail(f"control not caught: {what}")

    @contextmanager
    def no_error(self, what: str) -> Iterator[None]:
        """Count a trial that passes if the block raises nothing."""
        try:
            yield
        except Exception as error:
            self.trial(False, f"{what}: {type(error).__name__}: {error}")
        else:
            self.trial(True, what)

    def done(self, note: str = "") -> Trial:
        """The outcome so far."""
        return Trial(
            **self._about,
            trials=self.trials,
            passed=self.passed,
            controls=self.controls,
            caught=self.caught,
            note=note,
            failures=self.failures,
        )

    def _fail(self, what: str) -> None:
        if len(self.failures) < self.LISTED:
            self.failures.append(what)


class Same(str):
    """Equal to any other text, as a checksum that is not compared: for planted bugs."""

    def __ne__(self, other: object) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__
