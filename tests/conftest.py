"""What the tests share: a tiny model, tiny prepared splits, and the special tokens around their wordpieces."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.model.bert import BertConfig, BertEncoder
from mtbert.model.multitask import MultitaskModel

TINY = BertConfig(vocabulary=40, positions=32, layers=1, hidden=8, heads=2, intermediate=12)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny products are faster on one thread, and their last bits then do not depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def wrapper() -> Wrapper:
    """[CLS] is 1, [SEP] is 2; wordpieces of the tiny splits start at 3."""
    return Wrapper(cls=1, sep=2, max_tokens=24)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., MultitaskModel]:
    """make_model(pooling, quora, sts, ...): a randomly initialised tiny model, the same for the same arguments."""

    def make(
        pooling: str = "mean",
        quora: Sequence[str] | None = ("u", "v", "c"),
        sts: Sequence[str] | None = ("u", "v", "c"),
        *,
        config: BertConfig = TINY,
        seed: int = 0,
        dropout: float = 0.1,
        head_dropout: float = 0.3,
    ) -> MultitaskModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = MultitaskModel(BertEncoder(config, dropout), pooling, quora, sts, head_dropout)
            # Far from torch's defaults, so that a bias or a norm that is ignored shows.
            for parameter in model.parameters():
                parameter.data += 0.2 * torch.randn_like(parameter)
        return model

    return make


@pytest.fixture(scope="session")
def make_split() -> Callable[..., Split]:
    """make_split(task, rows, seed): random wordpieces of 1 to 7 per sentence; the first wordpiece tells the label."""

    def make(task: str, rows: int, seed: int = 0, labelled: bool = True) -> Split:
        rng = np.random.default_rng([seed, rows, ("sst", "quora", "sts").index(task)])

        def sentences() -> tuple[np.ndarray, np.ndarray]:
            offsets = np.concatenate(([0], np.cumsum(rng.integers(1, 8, rows)))).astype(np.int64)
            return rng.integers(3, TINY.vocabulary, offsets[-1]).astype(np.uint16), offsets

        ids1, offsets1 = sentences()
        ids2, offsets2 = sentences() if task != "sst" else (None, None)
        first = ids1[offsets1[:-1]].astype(np.int64)
        labels = {"sst": first % 5, "quora": first % 2, "sts": first % 26 / 5}[task].astype(np.float32)
        return Split(task, "train", Path(), ids1, offsets1, ids2, offsets2, labels if labelled else None)

    return make
