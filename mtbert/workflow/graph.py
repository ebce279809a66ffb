"""The stages that `dvc repro` would run, from DVC's own resolved graph."""

from typing import NamedTuple

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro

from mtbert.errors import MtbertError


class Job(NamedTuple):
    """A stage to run.

    Attributes:
        stage: DVC's name of it, such as `train@baseline`.
        command: what DVC would run, in the project's root.
        after: the stages to run whose outputs it reads.
    """

    stage: str
    command: str
    after: list[str]


def stale_jobs() -> list[Job]:
    """Run the stage `plan`, then list the stages that changed and those that depend on them, dependencies first.

    Raises:
        MtbertError: DVC cannot resolve the graph, or `plan` fails.
    """
    try:
        with Repo() as repo:
            repo.reproduce("plan")
        with Repo() as repo:  # another, since the new plan is part of the graph
            changed, graph = repo.status(), repo.index.graph
            jobs: dict[str, Job] = {}
            for stage in plan_repro(graph):
                if stage.path_in_repo != "dvc.yaml":
                    continue  # a study's: it has a graph of its own
                after = sorted(other.addressing for other in graph.successors(stage) if other.addressing in jobs)
                if stage.cmd and not stage.frozen and (after or stage.addressing in changed):
                    jobs[stage.addressing] = Job(stage.addressing, stage.cmd, after)
    except DvcException as error:
        raise MtbertError(f"DVC: {error}; `dvc repro plan && dvc status` must work first") from None
    return list(jobs.values())
