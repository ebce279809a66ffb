"""The sizes of the data and the encoder that params.yaml names, found before any stage has run."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtbert.corpus.prepare import clean
from mtbert.corpus.read import has_labels, read_blocks
from mtbert.corpus.source import copy_course, declared_files, write_sample
from mtbert.corpus.tokenizer import read_tokenizer
from mtbert.corpus.wordpieces import Wordpieces
from mtbert.data.arrays import Split, split_of
from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig
from mtbert.params import Params
from mtbert.peft.published import encoder_from
from mtbert.pipeline.paths import PRETRAINED, RAW
from mtbert.pipeline.planning import settings_of_stages
from mtbert.pretrained.source import pretrained
from mtbert.pretrained.store import TOKENIZER, read_config
from mtbert.tasks.paper import TASKS, known_tasks
from mtbert.tasks.task import SPLITS, Task, raw_name

SAMPLED = 512  # rows of each task that are tokenised; up to twice as many


class Rows(NamedTuple):
    """How many rows the data has, and a sample of them.

    Attributes:
        sizes: rows by task and split; a test split may be absent.
        sample: by task, some training rows spread over the whole split.
        source: where the data comes from, as it is printed.
    """

    sizes: dict[str, dict[str, int]]
    sample: dict[str, Split]
    source: str


class EncoderSize(NamedTuple):
    """The size of an encoder before it is fetched.

    Attributes:
        config: its size.
        tokenizer: the bytes of its tokenizer.json, or of a similar one if it is not downloaded yet.
        source: where the encoder comes from, as it is printed.
    """

    config: BertConfig
    tokenizer: bytes
    source: str


def encoder_size(params: Params) -> EncoderSize:
    """The size of the encoder that the settings name. The hub is not contacted.

    Raises:
        MtbertError: as from the encoder stage.
    """
    settings = params.encoder
    if settings.source != "hub":
        found = encoder_from(**settings_of_stages(params)["encoder"])
        return EncoderSize(found.config, found.tokenizer, str(found.source["name"]))
    name = str(settings.name)
    try:
        config = read_config(PRETRAINED)
        if (config["source"]["name"], config["source"].get("revision")) == (name, settings.revision):
            return EncoderSize(BertConfig(**config["encoder"]), (PRETRAINED / TOKENIZER).read_bytes(), name)
    except (MtbertError, KeyError, TypeError, OSError):
        pass  # missing or unusable: the encoder stage will write it again
    known = (
        "not downloaded yet" if name.endswith("bert-base-uncased") else "not downloaded yet; assumed to be a BERT-base"
    )
    return EncoderSize(BertConfig(), pretrained("minilm").tokenizer, f"{name} ({known})")


def count_rows(params: Params, folder: Path) -> Rows:
    """Count the rows of the data that the settings name, and tokenise a sample.

    Args:
        folder: holds tokenizer.json; raw files may be written there.

    Raises:
        MtbertError: a file is missing, as from the fetch stage, or has no usable row.
    """
    remedy = "choose an encoder whose tokenizer.json the `tokenizers` library reads"
    wordpieces = Wordpieces(read_tokenizer(folder / TOKENIZER, remedy, remedy))
    paper = _paper_rows(params, folder / "raw", wordpieces)
    given = Path(params.data.path).expanduser()
    known = known_tasks({name: task.model_dump() for name, task in params.tasks.items()}).values()
    declared = {task.name: task for task in known if task.course is None}
    declared_files(given, declared.values())  # raises the errors that fetch raises
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
        copy_course(course, raw)  # raises the errors that fetch raises
        # Rows are read in place, so that errors name the user's file.
        paths = {(name, split): course / task.file(split) for name, task in TASKS.items() for split in SPLITS}
        return Rows(*_read(paths, TASKS, params, wordpieces), params.data.path)
    if _downloaded(RAW):
        return Rows(*_read(_raw(RAW), TASKS, params, wordpieces), "downloaded")
    published = {name: task.course for name, task in TASKS.items() if task.course}
    sample = {name: _made_up(TASKS[name], course.wordpieces) for name, course in published.items()}
    sizes = {name: dict(course.rows) for name, course in published.items()}
    return Rows(sizes, sample, "not downloaded yet; the published sizes")


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
    """Count the rows by task and split, and sample each task's training rows evenly."""
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
            # The prepare stage reports bad rows.
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
            raise MtbertError(f"{paths[task.name, 'train']}: no row can be used; replace the file")
        sides = [(ids[np.repeat(some, lengths)], lengths[some]) for ids, lengths in pieces]
        sample[task.name] = _sample(task, sides)
    return sizes, sample


def _made_up(task: Task, mean: float) -> Split:
    """Random wordpieces in sentences of about this mean length, for data that is not downloaded yet."""
    rng = np.random.default_rng(0)
    lengths = [1 + rng.poisson(mean - 1, SAMPLED) for _ in task.texts]
    sides = [(rng.integers(1000, 20000, count.sum()).astype(np.uint16), count) for count in lengths]
    return _sample(task, sides)


def _sample(task: Task, sides: list[tuple[np.ndarray, np.ndarray]]) -> Split:
    return split_of(task.name, "train", Path(), sides, labels=np.zeros(len(sides[0][1]), np.float32))
