"""What a profile will cost, estimated before it starts: steps and tokens counted, minutes and memory from some steps taken here and now.

Not a stage of the graph: `mtbert plan [PROFILE]` calls it.
"""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tokenizers import Tokenizer

from mtbert.corpus.prepare import clean
from mtbert.corpus.read import has_labels, read_blocks
from mtbert.corpus.source import copy_course, declared_files, write_sample
from mtbert.corpus.wordpieces import Wordpieces
from mtbert.data.arrays import Split
from mtbert.data.tokens import wrapper_for
from mtbert.errors import MtbertError
from mtbert.evaluation.development import WATCHED
from mtbert.model.bert import BertConfig
from mtbert.params import Params, load_params
from mtbert.pipeline.ahead import row_tokens, views_of
from mtbert.pipeline.paths import PRETRAINED, RAW
from mtbert.pipeline.planning import check_paths, settings_of_stages
from mtbert.pipeline.rates import Rates, measure
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.source import pretrained
from mtbert.pretrained.store import TOKENIZER, read_config
from mtbert.settings import Run
from mtbert.tasks.paper import CURVE, TASKS, known_tasks
from mtbert.tasks.task import SPLITS, Task, raw_name
from mtbert.training.compute import Compute, machine, resolve
from mtbert.training.sampling import epoch_schedule

SAMPLED = 512  # rows of each task that are tokenised; up to twice as many
SECONDS_PER_STAGE = 2.0  # start, imports and DVC's own work: .5 s without torch, 3 s with it, on two cores of an EPYC
BYTES_PER_WORDPIECE = 5  # of English text


class Rows(NamedTuple):
    """The data's size, and some of it.

    Attributes:
        sizes: rows by task and split; a test split may be absent.
        sample: by task some training rows, spread over the whole split.
        source: where this comes from, in words.
    """

    sizes: dict[str, dict[str, int]]
    sample: dict[str, Split]
    source: str


class Size(NamedTuple):
    """An encoder's size, its tokenizer.json (or one that is much like it), and where this comes from, in words."""

    config: BertConfig
    tokenizer: bytes
    source: str


class Work(NamedTuple):
    """What a run has to compute: training steps and their tokens, tokens of its dev metrics, and those of the evaluate stage."""

    steps: int
    tokens: float
    watched: float
    evaluated: float


def main(profile: str | None = None, data: str | None = None, console: Console | None = None) -> None:
    """Print what the profile will cost on this machine if nothing of it has been done yet; takes some twenty seconds.

    Args:
        profile: a key of `profiles`; by default the one that params.yaml names.
        data: a folder to take instead of data.path, or "download" for the published files.
        console: where to print.

    Raises:
        MtbertError: params.yaml is at fault, or the data or the encoder are not there: what the stages would say later.
    """
    params = load_params(profile=profile)
    if data is not None:
        change = {"source": data} if data == "download" else {"path": data}
        params = params.model_copy(update={"data": params.data.model_copy(update=change)})
    check_paths(params)
    compute = resolve(**params.compute.model_dump())
    size = encoder_size(params)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / TOKENIZER).write_bytes(size.tokenizer)
        wrapper = wrapper_for(Path(folder) / TOKENIZER, params.prepare.max_tokens, BERT.special_tokens)
        rows = count_rows(params, Path(folder))
    work = {name: work_of(run, rows, params.prepare.max_tokens) for name, run in params.runs.items()}
    rates = measure(params.runs, size.config, rows.sample, wrapper, compute)
    show(console or Console(), params, rows, size, work, rates, compute)


def encoder_size(params: Params) -> Size:
    """Of the encoder that the settings name; of one on the hub without asking the hub.

    Raises:
        MtbertError: as the encoder stage.
    """
    settings = params.encoder
    if settings.source != "hub":
        found = pretrained(**settings_of_stages(params)["encoder"])
        return Size(found.config, found.tokenizer, str(found.source["name"]))
    name = str(settings.name)
    try:
        config = read_config(PRETRAINED)
        if (config["source"]["name"], config["source"].get("revision")) == (name, settings.revision):
            return Size(BertConfig(**config["encoder"]), (PRETRAINED / TOKENIZER).read_bytes(), name)
    except (MtbertError, KeyError, TypeError, OSError):
        pass  # not there yet, or not of use: the encoder stage makes it anew
    known = "not downloaded yet" if name.endswith("bert-base-uncased") else "not downloaded yet; taken for a BERT-base"
    return Size(BertConfig(), pretrained("minilm").tokenizer, f"{name} ({known})")


def count_rows(params: Params, folder: Path) -> Rows:
    """The data that the settings name.

    Args:
        folder: to be filled; holds tokenizer.json.

    Raises:
        MtbertError: as the fetch stage, of files that are missing.
    """
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    wordpieces = Wordpieces(tokenizer)
    paper = _paper_rows(params, folder / "raw", wordpieces)
    given = Path(params.data.path).expanduser()
    known = known_tasks({name: task.model_dump() for name, task in params.tasks.items()}).values()
    declared = {task.name: task for task in known if task.course is None}
    declared_files(given, declared.values())  # refuses what fetch refuses
    paths = {(name, split): given / task.file(split) for name, task in declared.items() for split in SPLITS}
    sizes, sample = _read(paths, declared, params, wordpieces)
    return Rows(paper.sizes | sizes, paper.sample | sample, paper.source)


def _paper_rows(params: Params, raw: Path, wordpieces: Wordpieces) -> Rows:
    source = params.data.source
    if source == "sample":
        sizes = {task: getattr(params.data.sample.sizes, task).model_dump() for task in TASKS}
        # A longer split starts with the rows of a shorter one.
        some = {task: {split: min(count, SAMPLED) for split, count in splits.items()} for task, splits in sizes.items()}
        write_sample(raw, params.data.sample.seed, some, params.data.sample.label_noise)
        return Rows(sizes, _read(_raw(raw), TASKS, params, wordpieces)[1], "generated")
    if source == "folder":
        course = Path(params.data.path).expanduser()
        copy_course(course, raw)  # refuses what fetch refuses; read in place, so that errors name the user's own file
        paths = {(name, split): course / task.file(split) for name, task in TASKS.items() for split in SPLITS}
        return Rows(*_read(paths, TASKS, params, wordpieces), params.data.path)
    if _downloaded(RAW):
        return Rows(*_read(_raw(RAW), TASKS, params, wordpieces), "downloaded")
    published = {name: task.course for name, task in TASKS.items() if task.course}
    sample = {name: _made_up(TASKS[name], course.wordpieces) for name, course in published.items()}
    sizes = {name: dict(course.rows) for name, course in published.items()}
    return Rows(sizes, sample, "not downloaded yet; the published sizes")


def work_of(run: Run, rows: Rows, max_tokens: int) -> Work:
    """Count what a run has to compute; exact but for the length of sentences, which is the sample's mean."""
    views = views_of(run)
    lengths = {task: float(row_tokens(rows.sample[task], views[task], max_tokens).mean()) for task in run.known}
    train: dict[str, int] = {task: rows.sizes[task]["train"] for task in run.tasks}
    # Only a draw by chance differs from epoch to epoch, and only in when a dataset is depleted.
    by_chance = run.epoch_end == "depletion" and run.sampler not in ("sequential", "round_robin")
    epochs, repeated = (run.epochs, 1) if by_chance else (1, run.epochs)
    steps, examples = 0, Counter[str]()
    for epoch in range(epochs):
        for task, chosen in epoch_schedule(train, run.batch_size, run.sampler, run.epoch_end, run.seed, epoch):
            steps += 1
            examples[task] += len(chosen)
    sizes = {task: rows.sizes[task] for task in run.known}
    watched = {task: min(splits["dev"], WATCHED) for task, splits in sizes.items()}
    if curve := sizes.get(CURVE.name):
        watched[CURVE.name] = curve["dev"] + min(curve["dev"], curve["train"])
    evaluated = {task: splits["dev"] + splits.get("test", 0) for task, splits in sizes.items()}
    return Work(
        steps * repeated,
        _tokens(examples, lengths) * repeated,
        _tokens(watched, lengths) * (run.epochs + 1),
        _tokens(evaluated, lengths),
    )


def show(
    console: Console, params: Params, rows: Rows, size: Size, work: Mapping[str, Work], rates: Rates, compute: Compute
) -> None:
    """The estimate as a table and some lines, at most 100 columns wide."""
    console.width = min(console.width, 100)
    seconds = {name: rates.training(params.runs[name], *work[name][:3]) for name in params.runs}
    evaluation = sum(rates.prediction(params.runs[name], work[name].evaluated) for name in params.runs)
    stages = len(settings_of_stages(params)) + 1
    starts = stages * SECONDS_PER_STAGE
    training = ", ".join(f"{splits['train']:,} {task}" for task, splits in rows.sizes.items())
    table = Table("run", box=box.SIMPLE if console.is_terminal else None)
    for head in ("steps", "tokens", "minutes"):
        table.add_column(head, justify="right")
    for name, one in work.items():
        table.add_row(name, f"{one.steps:,}", _count(one.tokens), _minutes(seconds[name]))
    every = list(work.values())
    table.add_row(
        "all runs",
        f"{sum(one.steps for one in every):,}",
        _count(sum(one.tokens for one in every)),
        _minutes(sum(seconds.values())),
    )
    main, gpu = rates.memory
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    busy = f" It is busy now (load {load:.1f} on {cores} cores): an idle one takes less." if load > cores else ""
    seconds_in_all = sum(seconds.values()) + evaluation + starts
    console.print(Text(f"Estimate for profile {params.profile} on this machine, if nothing of it is done yet"))
    console.print(
        _facts(
            data=f"{rows.source}: {training} training examples",
            encoder=f"{size.source}: {rates.largest.parameters / 1e6:.1f} million parameters",
        )
    )
    console.print(table)
    console.print(
        _facts(
            time=f"training with its dev metrics {_minutes(sum(seconds.values()))} min, evaluation {_minutes(evaluation)} min, "
            f"start of {stages} stages {_minutes(starts)} min: {_duration(seconds_in_all)} in all",
            memory=f"{_bytes(main)} at the peak" + (f", and {_bytes(gpu)} of the GPU's" if gpu else ""),
            disk=f"{_bytes(disk(params, rows, work, rates))} for data, models, results and checkpoints",
            measured=f"now, on {measured(rates, compute)}",
        )
    )
    console.print(Text(f"This is an estimate. Other work on the machine makes all of it longer.{busy}"))


def _facts(**texts: str) -> Table:
    """A line each; what does not fit goes on under its beginning."""
    table = Table.grid(padding=(0, 2))
    for name, text in texts.items():
        table.add_row(name, Text(text))
    return table


def measured(rates: Rates, compute: Compute) -> str:
    """What the minutes are computed from."""
    about = compute.describe()
    where = machine() if compute.device.type == "cpu" else about["device"]
    speeds = [
        f"{what} {rate.tokens / rate.seconds:,.0f} tokens/s ({rate.run}, {rate.tokens:,} tokens a step)"
        for what, rate in (("full fine-tuning", rates.full), ("adapter", rates.adapter))
        if rate
    ]
    return f"{where}, {about['precision']}: {', '.join(speeds)}, prediction {1 / rates.predict:,.0f}"


def disk(params: Params, rows: Rows, work: Mapping[str, Work], rates: Rates) -> float:
    """Bytes of data, models, results, and the two checkpoints that lie there while the second is written."""
    weights = 4.0 * rates.largest.parameters
    total = weights  # the encoder's
    for run in params.runs.values():
        adapter = 4 * rates.adapter_parameters(run)
        start = 0.0 if not adapter or run.adapter is None or run.adapter.start_from == "pretrained" else weights
        total += weights + 2 * adapter + start  # models/RUN and models/converted/RUN
    total += 2 * 3 * 4 * rates.largest.trained  # weights and two moments
    text = {
        (task, split): count * float(row_tokens(rows.sample[task], ("u", "v"), 10**6).mean()) * BYTES_PER_WORDPIECE
        for task, splits in rows.sizes.items()
        for split, count in splits.items()
    }
    # As fetched, and prepared twice: text and wordpieces. Each run lists its dev and test examples.
    total += 3 * sum(text.values())
    return total + len(work) * sum(count for (_, split), count in text.items() if split != "train")


def _downloaded(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "source.json").read_text(encoding="utf-8"))["source"] == "download")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _raw(folder: Path) -> dict[tuple[str, str], Path]:
    return {(name, split): folder / raw_name(task, split) for name, task in TASKS.items() for split in SPLITS}


def _read(
    paths: Mapping[tuple[str, str], Path], tasks: Mapping[str, Task], params: Params, wordpieces: Wordpieces
) -> tuple[dict[str, dict[str, int]], dict[str, Split]]:
    """Rows by task and split, and a sample of each task's training rows, evenly spread."""
    sizes: dict[str, dict[str, int]] = {}
    sample = {}
    for task in tasks.values():
        sizes[task.name] = {}
        kept: list[tuple[str, ...]] = []
        for split in SPLITS:
            path = paths[task.name, split]
            if not path.exists():
                continue  # an unlabelled test file is optional
            count, stride = 0, 1
            # Bad rows are for the prepare stage to report.
            for block, _ in read_blocks(path, task, split != "test" or has_labels(path, task), "drop"):
                if split == "train":
                    for number, row in enumerate(zip(*block.sides, strict=True), start=count):
                        if number % stride == 0:
                            kept.append(row)
                        if len(kept) > 2 * SAMPLED:
                            kept, stride = kept[::2], 2 * stride
                count += len(block.ids)
            sizes[task.name][split] = count
        tidy = partial(clean, task=task, preprocess=params.prepare.preprocess)
        pieces = [wordpieces.of(side, tidy) for side in zip(*kept, strict=True)]
        some = np.logical_and.reduce([lengths > 0 for _, lengths in pieces])
        if not kept or not some.any():
            raise MtbertError(f"{paths[task.name, 'train']}: no row can be used; put a sound file there")
        sides = [(ids[np.repeat(some, lengths)], lengths[some]) for ids, lengths in pieces]
        sample[task.name] = _split(task.name, sides)
    return sizes, sample


def _made_up(task: Task, mean: float) -> Split:
    """Rows of sentences of about that mean length, of wordpieces that stand for no text."""
    rng = np.random.default_rng(0)
    lengths = [1 + rng.poisson(mean - 1, SAMPLED) for _ in task.texts]
    return _split(task.name, [(rng.integers(1000, 20000, count.sum()).astype(np.uint16), count) for count in lengths])


def _split(task: str, sides: list[tuple[np.ndarray, np.ndarray]]) -> Split:
    arrays = [(ids, np.concatenate(([0], np.cumsum(lengths)))) for ids, lengths in sides]
    (ids1, offsets1), (ids2, offsets2) = arrays[0], arrays[1] if len(arrays) == 2 else (None, None)
    return Split(task, "train", Path(), ids1, offsets1, ids2, offsets2, np.zeros(len(offsets1) - 1, np.float32))


def _tokens(examples: Mapping[str, int], lengths: Mapping[str, float]) -> float:
    return sum(count * lengths[task] for task, count in examples.items())


def _count(count: float) -> str:
    return f"{count / 1e6:,.2f} M" if count >= 1e6 else f"{count / 1e3:,.1f} k"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}" if seconds < 600 else f"{seconds / 60:,.0f}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"about {minutes} min"
    return f"about {minutes // 60} h {minutes % 60} min" if minutes < 600 else f"about {minutes / 60:,.0f} h"


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
