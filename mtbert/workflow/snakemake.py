"""Write a Snakefile that runs the stale stages of DVC's graph, several at once.

Its rules are tied by marker files, one for each finished stage, and not by the stages' own outputs: Snakemake compares times where
DVC compares content, and it leaves a file in each folder that a rule declares as an output, which changes the folder's hash in DVC.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from mtbert.errors import MtbertError
from mtbert.files import atomic_write_text, remove_tree
from mtbert.params import Params, load_params
from mtbert.pipeline.paths import confine
from mtbert.pipeline.planning import settings_of_stages
from mtbert.pipeline.start import STARTED_BY
from mtbert.settings.project import Resources
from mtbert.workflow.graph import Job, stale_jobs

FOLDER = Path("build/workflow")
SNAKEFILE, DONE = FOLDER / "Snakefile", FOLDER / "done"
RECORD = f"ls {DONE} | xargs -r dvc commit --force && rm -r {FOLDER}"
HEAD = f"""\
# The stages that were stale when `mtbert workflow snakemake` wrote this from DVC's graph; docs/scale.md says how to run it.
import os

os.environ["{STARTED_BY}"] = str(os.getpid())  # a stage ends when this process does
"""


def main() -> None:
    """Bring the plan up to date, write the Snakefile, and print the commands that run it and record the results in DVC.

    Raises:
        MtbertError: params.yaml is invalid, DVC cannot resolve the graph, or results of an earlier Snakefile are not recorded.
    """
    params = load_params()
    confine(FOLDER)
    if done := sorted(marker.name for marker in DONE.glob("*")):
        raise MtbertError(
            f"{DONE}: stages finished that are not recorded in DVC, such as {done[0]}; "
            f"record them: `{RECORD}`, or forget them: `rm -r {FOLDER}`"
        )
    jobs = stale_jobs()
    remove_tree(FOLDER)
    if not jobs:
        print("All stages are up to date: there is nothing to run.")
        return
    DONE.mkdir(parents=True)
    gpus = torch.cuda.device_count()
    atomic_write_text(SNAKEFILE, snakefile(jobs, params, gpus))
    limit = f" --resources gpu={gpus}" if gpus else ""
    print(f"{SNAKEFILE}: stages to run: {len(jobs)}. Run them, then record those that finished:")
    print(f"  snakemake --snakefile {SNAKEFILE} --cores all{limit} --keep-going")
    print(f"  {RECORD}")
    if shutil.which("snakemake") is None:
        print("snakemake is not installed here: `pip install 'snakemake>=9,<10'`")


def snakefile(jobs: list[Job], params: Params, gpus: int) -> str:
    """The Snakefile's text: a rule for each stage and one, the default target, for all.

    Args:
        params: says what each rule may use.
        gpus: the number of GPUs of this machine.
    """
    settings = settings_of_stages(params)
    stale, inner = {job.stage for job in jobs}, {stage for job in jobs for stage in job.after}
    ends = [job.stage for job in jobs if job.stage not in inner]
    # A run whose weights an adapter starts from; DVC has no dependency on it, and trains the runs in their order in params.yaml.
    starts = {f"train@{name}": f"train@{run.start_run}" for name, run in params.runs.items() if run.start_run}
    blocks = [HEAD, f"rule all:\n    input: {_markers(ends)}\n    localrule: True\n"]
    for job in jobs:
        compute = settings.get(job.stage.replace("@", "/"), {}).get("compute")
        resources = getattr(params.workflow, job.stage.partition("@")[0], Resources())
        if (first := starts.get(job.stage)) in stale:
            job = job._replace(after=[*job.after, first])
        blocks.append(_rule(job, compute, resources, gpus))
    return "\n\n".join(blocks)


def _rule(job: Job, compute: Mapping[str, Any] | None, resources: Resources, gpus: int) -> str:
    """The rule of one stage. A stage that neither trains nor predicts stays here: a cluster's nodes may have no internet.

    Args:
        compute: the section of params.yaml, if the stage trains or predicts.
    """
    devices = ("cuda", "auto") if gpus else ("cuda",)
    wanted = int(compute is not None and compute["device"] in devices) if resources.gpus is None else resources.gpus
    limits = {"gpu": wanted or None, "mem_mb": resources.memory_mb, "runtime": resources.minutes}
    command = f"python -m mtbert.workflow.gpu {wanted} {job.command}" if wanted else job.command
    command = command.replace("{", "{{").replace("}", "}}")  # Snakemake fills in what is in braces
    return f"""\
rule:
    name: {job.stage!r}
    input: {_markers(job.after)}
    output: touch({_markers([job.stage])})
    localrule: {compute is None}
    threads: {compute["threads"] if compute and compute["threads"] != "auto" else 1}
    resources: {", ".join(f"{name}={limit}" for name, limit in limits.items() if limit is not None)}
    shell: {command!r}
""".replace(" \n", "\n")


def _markers(stages: Iterable[str]) -> str:
    return ", ".join(repr(f"{DONE}/{stage}") for stage in stages)
