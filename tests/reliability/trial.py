"""Counts the trials of a figure."""

from dataclasses import dataclass, field

LISTED = 20


@dataclass
class Tally:
    """One figure's trials and controls, counted as they are made.

    Attributes:
        figure: its number.
        target: the target in words.
        trials, passed: the number of trials, and of those that met the target.
        needed: the share of trials that must pass, 1 unless the target says otherwise.
        controls, caught: the number of planted bugs, and of those that the trial noticed; all must be.
        seed: seeds all random choices.
        seconds: how long it took.
        note: what was skipped on this machine and why, and measured values.
        failures: the first trials and controls that failed.
    """

    figure: int
    title: str
    target: str
    seed: int
    needed: float = 1.0
    trials: int = 0
    passed: int = 0
    controls: int = 0
    caught: int = 0
    seconds: float = 0.0
    note: str = ""
    failures: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether enough trials passed and every planted bug was caught; False without trials or controls."""
        enough = self.trials > 0 and self.passed >= self.needed * self.trials
        return enough and self.controls > 0 and self.caught == self.controls

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

    def _fail(self, what: str) -> None:
        if len(self.failures) < LISTED:
            self.failures.append(what)


class Same(str):
    """Equal to any other text, as a checksum that is not compared: for planted bugs."""

    def __ne__(self, other: object) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__
