"""A trained model that takes text: labels by name with their probabilities, scores, and sentence vectors.

Shapes: R examples, N sentences, D hidden.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from tokenizers import Tokenizer

from mtbert.corpus.prepare import clean
from mtbert.corpus.wordpieces import Wordpieces
from mtbert.data.arrays import Split, split_of
from mtbert.data.batches import length_grouped, stream_of
from mtbert.data.tokens import Wrapper
from mtbert.errors import MtbertError, nearest, short
from mtbert.evaluation.predict import raw_scores
from mtbert.settings.run import Model
from mtbert.tasks.task import Kind, Task
from mtbert.training.engine import Engine

CHUNK = 4096  # examples that are tokenized and sorted by length together
CHARACTERS = 1 << 22  # a chunk of long texts ends earlier
BATCH = 64  # examples that are computed together, as in evaluation

T = TypeVar("T")
Sides = tuple[str, ...]  # the one or two sentences of an example
Example = str | Sequence[str]
SENTENCE = Task("", "", ("sentence",), "", "score", 0, 1)  # what `encode` reads


class TaskInfo(NamedTuple):
    """A task of a trained model.

    Attributes:
        name: as `predict` takes it.
        kind: classes (one of several), binary (one of two) or score (a number).
        sentences: 1, or 2 for pairs.
        columns: what the training files call the sentences.
        labels: the labels by name; empty for a score.
        low, high: the ends of a score's range; None for labels.
    """

    name: str
    kind: Kind
    sentences: int
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    low: float | None
    high: float | None


class Label(NamedTuple):
    """A predicted label by name, and the probability of each label."""

    label: str
    probabilities: dict[str, float]


class Score(NamedTuple):
    """A predicted score, and the ends of the range of the labels that it was trained on."""

    score: float
    low: float
    high: float


Prediction = Label | Score


class Tokenized(NamedTuple):
    """R examples as wordpieces.

    Attributes:
        split: their arrays.
        empty: (R,), 1 or 2 where that sentence has no wordpiece, else 0. Such an example cannot be predicted.
        cut: (R,), whether a sequence is longer than the model takes, and loses its end.
    """

    split: Split
    empty: np.ndarray
    cut: np.ndarray


class LongInputWarning(UserWarning):
    """Some examples were longer than the model takes, and were cut."""


class TrainedModel:
    """A model from its folder, as `mtbert.load` gives it.

    Attributes:
        folder: where it was loaded from.
        tasks: what it predicts, by name.
        max_tokens: the longest sequence that it takes, special tokens included; what is longer is cut.
        network: the torch model, its adapter merged if it can be.
        settings: of the run.
        preprocess: how text is cleaned, as `mtbert.corpus.prepare.clean` takes it.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        settings: Model,
        tasks: Mapping[str, TaskInfo],
        tokenizer: Tokenizer,
        wrapper: Wrapper,
        preprocess: Literal["course", "none"],
    ) -> None:
        self.folder, self.tasks, self.max_tokens = folder, dict(tasks), wrapper.max_tokens
        self._engine, self.network, self._device = engine, engine.model, engine.compute.device
        self.settings, self._known = settings, settings.known
        self._wordpieces, self._wrapper, self.preprocess = Wordpieces(tokenizer), wrapper, preprocess

    def __repr__(self) -> str:
        return f"<mtbert model {self.folder}: {', '.join(self.tasks)}; on {self._device}>"

    def task(self, name: str) -> TaskInfo:
        """The task of this name.

        Raises:
            MtbertError: the model has none; names those that it has.
        """
        if name not in self.tasks:
            raise MtbertError(f"{self.folder}: has no task {name!r}{nearest(name, list(self.tasks))}")
        return self.tasks[name]

    def predict(self, task: str, examples: Iterable[Example], *, batch_size: int = BATCH) -> list[Prediction]:
        """Predict every example.

        Args:
            task: a key of `tasks`.
            examples: sentences, or pairs of sentences where the task is about pairs.
            batch_size: examples that are computed together; it bounds memory, and does not change predictions.

        Returns:
            `Label`s or, for a task with scores, `Score`s, in the order of the examples.

        Raises:
            MtbertError: the model lacks the task, `batch_size` is below 1, or an example is malformed or empty; names it, from 0.

        Warns:
            LongInputWarning: examples were longer than `max_tokens` and were cut.
        """
        return list(self.predict_iter(task, examples, batch_size=batch_size))

    def predict_iter(self, task: str, examples: Iterable[Example], *, batch_size: int = BATCH) -> Iterator[Prediction]:
        """As `predict`, but one by one, for inputs of any length: a few thousand examples are read ahead and held in memory."""
        info = self.task(task)
        _check_batch_size(batch_size)
        return self._predictions(task, _rows(examples, info.sentences), batch_size)

    def encode(self, sentences: Iterable[str], *, task: str | None = None, batch_size: int = BATCH) -> np.ndarray:
        """The pooled vector u of each sentence (section 4.2), (N, D) float32, in their order.

        Args:
            task: a key of `tasks`, for an encoder with parts for each task; other encoders give the same vectors for all tasks.

        Raises:
            MtbertError, LongInputWarning: as `predict`.
        """
        if task is not None:
            self.task(task)
        _check_batch_size(batch_size)
        parts = [np.empty((0, self.network.encoder.config.hidden), np.float32)]
        cut = seen = 0
        for chunk in chunks(_rows(sentences, 1), _length):
            found = self._checked(None, chunk, seen)
            cut, seen = cut + int(found.cut.sum()), seen + len(chunk)
            parts.append(self._vectors(found.split, task, batch_size))
        _warn(cut, self.max_tokens)
        return np.concatenate(parts)

    def tokenize(self, task: str, rows: Sequence[Sequence[str]]) -> Tokenized:
        """The wordpieces of examples, cleaned as the training data were."""
        return self._tokenize(self._known[task], list(zip(*rows, strict=True)), self.network.views(task))

    def score(
        self, task: str, split: Split, rows: np.ndarray | None = None, batch_size: int = BATCH
    ) -> list[Prediction]:
        """The predictions for some of the tokenized examples, or all of them."""
        rows = np.arange(len(split)) if rows is None else rows
        if not len(rows):
            return []
        with self._engine.inference():
            raw = raw_scores(self.network, task, split, self._wrapper, rows=rows, batch_size=batch_size)
        objective, known, info = self.settings.heads[task], self._known[task], self.tasks[task]
        values = objective.decide(raw, known).values.tolist()
        if info.low is not None and info.high is not None:
            return [Score(value, info.low, info.high) for value in values]
        shares = objective.probabilities(raw, known).tolist()
        return [
            Label(info.labels[int(value)], dict(zip(info.labels, share, strict=True)))
            for value, share in zip(values, shares, strict=True)
        ]

    def _predictions(self, task: str, rows: Iterable[Sides], batch_size: int) -> Iterator[Prediction]:
        cut = seen = 0
        for chunk in chunks(rows, _length):
            found = self._checked(task, chunk, seen)
            cut, seen = cut + int(found.cut.sum()), seen + len(chunk)
            yield from self.score(task, found.split, batch_size=batch_size)
        _warn(cut, self.max_tokens)

    def _checked(self, task: str | None, rows: Sequence[Sides], seen: int) -> Tokenized:
        """Examples of a task, or single sentences, tokenized; refused if one of them is unusable."""
        names = names_of(len(rows[0]))
        for n, sides in enumerate(rows):
            if what := fault(sides, names):
                raise MtbertError(f"example {seen + n}: {what}; correct it or leave it out")
        if task is None:
            found = self._tokenize(SENTENCE, list(zip(*rows, strict=True)), ("u",))
        else:
            found = self.tokenize(task, rows)
        if found.empty.any():
            n = int(np.argmax(found.empty > 0))
            what = f"{names[found.empty[n] - 1]} {NO_WORDPIECE}"
            raise MtbertError(f"example {seen + n}: {what}; correct it or leave it out")
        return found

    def _tokenize(self, task: Task, sides: Sequence[Sequence[str]], views: Sequence[str]) -> Tokenized:
        cleaning = partial(clean, task=task, preprocess=self.preprocess)
        pieces = [self._wordpieces.of(side, cleaning) for side in sides]
        lengths = [found for _, found in pieces]
        empty = np.zeros(len(sides[0]), np.int64)
        for number in range(len(sides), 0, -1):
            empty[lengths[number - 1] == 0] = number
        over = {"u": lengths[0] > self.max_tokens - 2, "v": lengths[-1] > self.max_tokens - 2}
        over["c"] = np.sum(lengths, axis=0) > self.max_tokens - 3
        split = split_of(task.name, "", self.folder, pieces)
        return Tokenized(split, empty, np.logical_or.reduce([over[view] for view in views]))

    def _vectors(self, split: Split, task: str | None, batch_size: int) -> np.ndarray:
        out = np.empty((len(split), self.network.encoder.config.hidden), np.float32)
        with self._engine.inference():
            for rows in length_grouped(split, np.arange(len(split)), batch_size):
                sequences = [
                    self._wrapper.single(split.ids1[split.offsets1[row] : split.offsets1[row + 1]]) for row in rows
                ]
                out[rows] = self.network.pooled(stream_of(sequences).to(self._device), task).float().cpu().numpy()
        return out


NO_WORDPIECE = "has no wordpiece (nothing but characters that the tokenizer drops)"


def fault(sides: Sequence[str], names: Sequence[str]) -> str:
    """What is wrong with an example's sentences, called by `names`; empty if nothing is.

    Bytes that are not UTF-8 stand in them as Python's `surrogateescape` puts them.
    """
    for text, name in zip(sides, names, strict=True):
        if not text or text.isspace():
            return f"empty {name}"
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                code = ord(text[error.start])
                what = f"byte {code - 0xDC00:#04x}" if 0xDC80 <= code <= 0xDCFF else f"lone surrogate {code:#06x}"
                return f"{name} is not UTF-8 ({what} at character {error.start + 1})"
    return ""


def names_of(sentences: int) -> tuple[str, ...]:
    """What an example's sentences are called by default."""
    return ("sentence",) if sentences == 1 else ("sentence1", "sentence2")


def cut_message(count: int, what: str, limit: int) -> str:
    """That so many rows or examples were cut."""
    some = f"1 {what} had" if count == 1 else f"{count} {what}s had"
    return f"{some} more than {limit} tokens and {'was' if count == 1 else 'were'} cut"


def chunks(rows: Iterable[T], characters: Callable[[T], int]) -> Iterator[list[T]]:
    """Lists of up to CHUNK rows, which end earlier once they have CHARACTERS characters; `characters` counts those of a row."""
    chunk: list[T] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += characters(row)
        if len(chunk) == CHUNK or size >= CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _length(sides: Sides) -> int:
    return sum(map(len, sides))


def _check_batch_size(size: int) -> None:
    if size < 1:
        raise MtbertError(f"batch_size is {size}; set it to 1 or more")


def _rows(examples: Iterable[Any], sentences: int) -> Iterator[Sides]:
    if isinstance(examples, str):
        raise MtbertError(f"examples are {short(examples)}, a single text; put it into a list")
    return (_sides(example, sentences, number) for number, example in enumerate(examples))


def _sides(example: Any, sentences: int, number: int) -> Sides:
    sides = (example,) if isinstance(example, str) else tuple(example) if isinstance(example, Sequence) else ()
    if len(sides) != sentences or not all(isinstance(side, str) for side in sides):
        wanted = "a sentence (str)" if sentences == 1 else "a pair of sentences (str, str)"
        raise MtbertError(f"example {number}: is {short(example)}, not {wanted}; correct it or leave it out")
    return sides


def _warn(cut: int, limit: int) -> None:
    if cut:
        warnings.warn(cut_message(cut, "example", limit), LongInputWarning, stacklevel=3)
