"""One run trained by several processes that torchrun started; each takes its share of every step's examples.

A step is the same as in one process up to rounding: the shares' losses are weighted by their numbers of examples, the
gradients are summed, and every process then makes the same update. Only the fast engine on CUDA draws dropout's masks in each
process by itself. The gradients are summed by one all-reduce after the
backward, not by `nn.parallel.DistributedDataParallel`: that needs to be told which heads a task leaves without gradients,
and misses the gradients that the fast engine for the CPU writes without autograd.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mtbert.errors import MtbertError, Stopped, short
from mtbert.training.compute import Compute

ADDRESS = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets besides WORLD_SIZE


class Group:
    """The processes of a run; by default this one alone.

    Args:
        rank: this process's number, from 0.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this is the process that evaluates and writes all files."""
        return self.rank == 0

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers. All processes must call it, and wait for each other.

        Raises:
            MtbertError: another process has ended or no longer answers.
        """
        if self.size == 1:
            return number
        return int(_all_reduced(torch.tensor(number), dist.ReduceOp.MAX))

    def of_first(self, value: Any) -> Any:
        """The first process's value, of JSON's types; called like `largest`, with any value in the others."""
        if self.size == 1:
            return value
        text = json.dumps(value).encode() if self.first else b""
        letters = torch.zeros(self.largest(len(text)), dtype=torch.uint8)
        if self.first:
            letters.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        return json.loads(bytes(_all_reduced(letters, dist.ReduceOp.MAX).tolist()))

    def check_same(self, what: str, values: dict[str, Any], remedy: str) -> None:
        """Check that every process has the first one's values, of JSON's types.

        Args:
            what: names the values, for the error.
            remedy: the end of the error.

        Raises:
            MtbertError: names the keys that differ.
        """
        first, here = self.of_first(values), json.loads(json.dumps(values))
        differing = [
            f"{key} ({short(here.get(key))}, not {short(first.get(key))})"
            for key in first | here
            if here.get(key) != first.get(key)
        ]
        if differing:
            raise MtbertError(
                f"process {self.rank} has another {what} than process 0: {', '.join(differing)}; {remedy}"
            )


ALONE = Group()


def placed(compute: Compute) -> Compute:
    """`compute` on this process's own GPU, if torchrun started it.

    CUDA graphs are off, since the processes' shares have different numbers of tokens: one would record a step while
    another replays it.

    Raises:
        MtbertError: there are more processes than GPUs on this machine.
    """
    if _processes() == 1 or compute.device.type != "cuda":
        return compute
    place, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= gpus:
        raise MtbertError(
            f"this machine has {gpus} GPUs, too few for process {place + 1} on it; start torchrun with --nproc-per-node {gpus}"
        )
    torch.cuda.set_device(place)
    return compute._replace(device=torch.device("cuda", place), graphs=False)


@contextmanager
def joined(compute: Compute) -> Iterator[Group]:
    """The processes that torchrun started with this one; `ALONE` without torchrun.

    Raises:
        MtbertError: the environment names several processes, but not how to reach them.
    """
    if _processes() == 1:
        yield ALONE
        return
    if missing := [name for name in ADDRESS if name not in os.environ]:
        raise MtbertError(
            f"WORLD_SIZE is {_processes()}, but {', '.join(missing)} is not set; start with torchrun, or unset WORLD_SIZE"
        )
    # What is agreed on is in host memory, so that the host need not wait for the GPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if compute.device.type == "cuda" else "gloo")
    group = Group(dist.get_rank(), dist.get_world_size())
    try:
        yield group
    except Stopped as stopped:
        if group.first:
            raise
        raise SystemExit(stopped.status) from None  # the first process has told the user
    # Not after an exception: it could wait for processes that have ended.
    dist.destroy_process_group()


def summed(parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
    """Replace the gradients by their sums over all processes; returns the sum of the losses, ().

    Raises:
        MtbertError: as `Group.largest`.
    """
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [parameter.grad.flatten() for parameter in trained if parameter.grad is not None]
    flat = _all_reduced(torch.cat([*gradients, loss.view(1)]), dist.ReduceOp.SUM)
    *sums, total = flat.split([*(len(gradient) for gradient in gradients), 1])
    for parameter, gradient in zip(trained, sums, strict=True):
        parameter.grad = gradient.view_as(parameter)
    return total[0].clone()  # the sums' memory can be freed before the loss is read


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE") or 1)


def _all_reduced(values: Tensor, by: "dist.ReduceOp.RedOpType") -> Tensor:
    try:
        dist.all_reduce(values, by)
    except RuntimeError as error:
        raise MtbertError(
            f"process {dist.get_rank()} of {dist.get_world_size()}: another process has ended or no longer answers; its own "
            f"message says why, and the same command resumes from the last checkpoint ({str(error).partition('. ')[0]})"
        ) from None
    return values
