"""Estimate what a profile will cost: count its steps and tokens, and time a few steps for minutes and memory.

This is no stage of the graph: `mtbert plan [PROFILE]` calls it, and `mtbert bundle` for the order of runs.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mtbert.data.tokens import Wrapper, wrapper_for
from mtbert.errors import MtbertError
from mtbert.params import PARAMS_FILE, Params, load_params, load_study, study_file
from mtbert.pipeline.estimate import show
from mtbert.pipeline.planning import check_paths
from mtbert.pipeline.rates import measure
from mtbert.pipeline.sizes import EncoderSize, Rows, count_rows, encoder_size
from mtbert.pipeline.training import packages_of_run
from mtbert.pipeline.workload import workload
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.store import TOKENIZER
from mtbert.settings.project import Data
from mtbert.training.compute import resolve


def main(
    profile: str | None = None, data: str | None = None, study: str | None = None, console: Console | None = None
) -> None:
    """Print what the profile will cost on this machine if nothing of it is done yet. This takes some ten seconds for each
    kind of run: full fine-tuning, and each method of adapters.

    Args:
        profile: a key of `profiles`; by default the one that params.yaml names.
        data: a folder to take instead of data.path, or "download" for the published files.
        study: the name of a folder of `studies`, for its runs instead of the project's.
        console: where to print.

    Raises:
        MtbertError: there is no such study, params.yaml is invalid, or the data or the encoder is missing; the same errors that
            the stages would raise.
    """
    if study is None:
        path, params = PARAMS_FILE, load_params(profile=profile)
    else:
        path = study_file(study)
        params = load_study(path, profile=profile)
    if data is not None:
        params = params.model_copy(update={"data": _data(params, data)})
    check_paths(params)
    compute = resolve(**params.compute.model_dump())
    size, rows, wrapper = _counted(params)
    work = {name: workload(run, rows, params.prepare.max_tokens) for name, run in params.runs.items()}
    try:
        for name, run in params.runs.items():
            packages_of_run(run, f"runs.{name}")
        rates = measure(params.runs, size.config, rows.sample, wrapper, compute)
    except MtbertError as error:  # it names the file that a stage of the study finds in its folder
        raise MtbertError(str(error).replace(f"{PARAMS_FILE}: runs.", f"{path}: runs.")) from None
    show(console or Console(), params, rows, size, work, rates, compute, study)


def _data(params: Params, given: str) -> Data:
    """The section `data` with what --data names."""
    if given == "download":
        return params.data.model_copy(update={"source": given})
    folder = Path(given).resolve()
    if not folder.is_dir():
        raise MtbertError(f"--data: there is no folder {given}; name the folder with the course's files, or download")
    if params.data.source != "folder" and not params.tasks:
        raise MtbertError(
            f"--data: the profile {params.profile} reads no folder (data.source: {params.data.source}); leave it out"
        )
    return params.data.model_copy(update={"path": str(folder)})


def longest_first(params: Params, runs: Sequence[str]) -> dict[str, int]:
    """The tokens that runs train on, the most first, so that the last ones to start, several at once, are short.

    Raises:
        MtbertError: as `main`.
    """
    _, rows, _ = _counted(params)
    tokens = {run: round(workload(params.runs[run], rows, params.prepare.max_tokens).tokens) for run in runs}
    return dict(sorted(tokens.items(), key=lambda item: -item[1]))


def _counted(params: Params) -> tuple[EncoderSize, Rows, Wrapper]:
    size = encoder_size(params)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / TOKENIZER).write_bytes(size.tokenizer)
        wrapper = wrapper_for(Path(folder) / TOKENIZER, params.prepare.max_tokens, BERT.special_tokens)
        return size, count_rows(params, Path(folder)), wrapper
