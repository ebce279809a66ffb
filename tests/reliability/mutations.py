"""Figure 17: the share of small mistakes in the most important modules that the modules' own tests notice.

Each mutant (see mutants.py) runs in a fork in which torch, pytest and the peers are imported, but nothing of mtbert;
the fork imports the mutated module first. No file is written. Only the tests that mirror the module run, up to the
first failure. A mutant also counts as noticed if the tests need more than `SLOWER` times their usual processor time, or
too much memory. A process that a test starts imports the original module.

Survivors that were examined are in survivors.md with a verdict. *Equivalent* means that the mutant behaves like the
original; only those do not count as survivors.
"""

import contextlib
import gc
import importlib
import os
import re
import resource
import signal
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from multiprocessing import get_context
from pathlib import Path
from types import CodeType
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from tests.project import ROOT, forked
from tests.reliability.mutants import Mutant, mutants, mutated
from tests.reliability.trial import Tally

MODULES = (
    "mtbert/corpus/read.py",
    "mtbert/corpus/split.py",
    "mtbert/corpus/header.py",
    "mtbert/training/sampling.py",
    "mtbert/evaluation/metrics.py",
    "mtbert/peft/lora.py",
    "mtbert/peft/dora.py",
    "mtbert/peft/convert.py",
    "mtbert/fast/cpu/adapters.py",
    "mtbert/training/checkpoint.py",
    "mtbert/resolve.py",
    "mtbert/settings/run.py",
    "mtbert/params_errors.py",
    "mtbert/params.py",
)
# Modules without a test file of the same name.
TESTED_BY = {
    **dict.fromkeys(("mtbert/settings/run.py", "mtbert/params_errors.py"), "tests/test_params.py"),
    **dict.fromkeys(("mtbert/peft/lora.py", "mtbert/peft/dora.py"), "tests/peft/test_layers.py"),
    **dict.fromkeys(("mtbert/corpus/split.py", "mtbert/corpus/header.py"), "tests/corpus/test_read.py"),
}
QUICK = ("mtbert/evaluation/metrics.py", "mtbert/training/sampling.py")
NEEDED = 0.85
SAMPLE, FEW = 150, 6  # mutants of each module, in the two tiers
SURVIVED, BROKEN = 0, 70  # exit status: all tests passed; the module could not even be imported
SLOWER, SLACK = 3, 2  # seconds of processor time
MEMORY = 4 << 30
WARM = (
    *("torch", "torch.nn.functional", "numpy.testing", "scipy.stats", "sklearn.metrics", "pydantic", "ruamel.yaml", "safetensors.torch"),
    *("hypothesis.strategies", "hypothesis.internal.conjecture.engine", "pytest", "_pytest.assertion.rewrite", "unittest.mock", "peft"),
)  # fmt: skip
JUDGED = re.compile(r"- (equivalent|immaterial|gap) (`[\w.]+`: `[^`]+` → `[^`]+`): .+")


class Job(NamedTuple):
    """A module with one mutant, or None for the original, or another source; and the tests to run."""

    module: str
    mutant: int | None
    tests: str
    source: str | None = None
    seconds: float = 60.0  # of processor time


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """Test a sample of each module's mutants. Controls: original modules, tests of another module, and a module that cannot be imported."""
    tally = Tally(17, "mutation score", f"≥ {NEEDED:.0%} of mutants noticed, survivors judged", seed, NEEDED)
    names = QUICK if quick else MODULES
    sources = {name: (ROOT / name).read_text(encoding="utf-8") for name in names}
    everything = {name: mutants(source) for name, source in sources.items()}
    rng = np.random.default_rng(seed)
    chosen: dict[str, list[Mutant]] = {}
    for name, all_of_it in everything.items():
        picked = rng.permutation(len(all_of_it))[: FEW if quick else SAMPLE]
        chosen[name] = [all_of_it[number] for number in sorted(picked)]

    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), get_context("spawn"), _warm, (folder,)) as pool:
        clean = dict(zip(names, pool.map(outcome, [Job(name, None, mirror(name)) for name in names]), strict=True))
        for name, (status, _) in clean.items():
            tally.control(status == SURVIVED, f"{name} without a mistake fails its tests")
        jobs = [
            Job(name, mutant.number, mirror(name), seconds=SLOWER * clean[name][1] + SLACK)
            for name, some in chosen.items()
            for mutant in some
        ]
        results = iter(pool.map(outcome, jobs))
        outcomes = {name: [(mutant, next(results)[0]) for mutant in some] for name, some in chosen.items()}
        metrics, sampling = QUICK
        blind = [Job(metrics, mutant.number, mirror(sampling)) for mutant in chosen[metrics][:4]]
        for job, (status, _) in zip(blind, pool.map(outcome, blind), strict=True):
            tally.control(status == SURVIVED, f"tests of {sampling} notice mutant {job.mutant} of {metrics}")
        none = pool.submit(outcome, Job(metrics, None, mirror(metrics), source="raise RuntimeError"))
        tally.control(none.result()[0] == BROKEN, f"the tests import another {metrics} than the mutant")

    notes = []
    verdicts = judged()
    for name, found in outcomes.items():
        notes.append(_count(tally, name, found, len(everything[name]), verdicts.get(name, {})))
    counted = binomtest(tally.passed, tally.trials).proportion_ci(method="wilson")
    tally.note = f"{'; '.join(notes)}; 95% of samples like this lie in {counted.low:.1%} to {counted.high:.1%}"
    return [tally]


def _count(tally: Tally, name: str, outcomes: list[tuple[Mutant, int]], of: int, verdicts: Mapping[str, str]) -> str:
    """Count one module's outcomes in the tally; returns a note on it."""
    survivors = [mutant for mutant, status in outcomes if status == SURVIVED]
    for mutant, status in outcomes:
        verdict = verdicts.get(str(mutant), "not judged")
        if status != SURVIVED:
            tally.trial(True, "")
            if verdict == "equivalent":
                tally.control(False, f"{name} {mutant} is judged equivalent, but was noticed")
        elif verdict != "equivalent":
            tally.trial(False, f"{name}:{mutant.line} {mutant} ({verdict})")
    killed = len(outcomes) - len(survivors)
    same = sum(verdicts.get(str(mutant)) == "equivalent" for mutant in survivors)
    score = killed / max(1, len(outcomes) - same)
    return f"{name} {score:.0%} ({killed} of {len(outcomes)}, {same} of them equivalent; {of} in all)"


def mirror(module: str) -> str:
    """The tests of a module: `mtbert/corpus/read.py` has `tests/corpus/test_read.py`."""
    if module in TESTED_BY:
        return TESTED_BY[module]
    path = Path("tests", *Path(module).parts[1:])
    return str(path.with_name(f"test_{path.name}"))


def judged() -> dict[str, dict[str, str]]:
    """By module, the verdict on each survivor in tests/reliability/survivors.md."""
    found: dict[str, dict[str, str]] = {}
    here: dict[str, str] = {}
    for line in (ROOT / "tests/reliability/survivors.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            here = found.setdefault(line.removeprefix("## "), {})
        elif match := JUDGED.fullmatch(line):
            here[match[2]] = match[1]
        elif line.startswith("- "):
            raise ValueError(f"survivors.md: not a verdict: {line}")
    return found


def outcome(job: Job) -> tuple[int, float]:
    """Run one job in a fork: its exit status (minus the signal that ended it), and its seconds of processor time."""
    before = _children()
    status = forked(lambda: _test(job))
    return status, _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _warm(folder: Path) -> None:
    """Import what no mutant changes, and freeze it for the garbage collector, which pytest runs three times a run."""
    tempfile.tempdir = str(folder)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()


class _Mutant(SourceFileLoader):
    """Loads a module of this name from another source."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.path, "exec")


def _test(job: Job) -> None:
    """In a fork: replace the module by its mutant and exit with pytest's status."""
    import hypothesis
    import pytest
    import torch

    os.chdir(ROOT)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mtbert", "stages", "tests")]:
        del sys.modules[name]
    seconds = int(job.seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    signal.alarm(20 * seconds)  # a mutant that waits forever takes no processor time
    address_space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (address_space + MEMORY, address_space + MEMORY))
    torch.set_num_threads(1)
    # Failing examples need not be shrunk, since nobody reads them.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("same", derandomize=True, database=None, deadline=None, phases=phases)
    hypothesis.settings.load_profile("same")

    path = ROOT / job.module
    source = job.source or mutated(path.read_text(encoding="utf-8"), job.mutant)
    name = job.module.removesuffix(".py").replace("/", ".")
    loader = _Mutant(name, str(path), source)
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except Exception:
        sys.exit(BROKEN)
    package, _, child = name.rpartition(".")
    setattr(importlib.import_module(package), child, module)
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", f"--basetemp={tempfile.gettempdir()}/{os.getpid()}"]
    sys.exit(int(pytest.main([*options, job.tests])))
