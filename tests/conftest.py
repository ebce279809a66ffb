"""What the tests share: a tiny model, tiny prepared splits, and the special tokens around their wordpieces."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.model.bert import BertConfig
from mtbert.model.multitask import MultitaskModel
from tests.tiny import tiny_model, tiny_split

pytest_plugins = ["tests.stage_fixtures"]

# Without a GPU, Triton's interpreter runs the kernels. It must be chosen before Triton is imported, which other libraries do too.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

LONGEST = {
    *("test_pipeline.py", "test_reproduce.py", "test_experiments.py", "test_cli.py", "test_loop.py", "test_real.py"),
    *("test_snakemake.py", "test_seal.py", "test_params.py"),
}

# Of a size that our kernels take, in fp32.
TINY = BertConfig(vocabulary=40, positions=32, layers=1, hidden=32, heads=2, intermediate=48)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m gpu` imports only the files with such tests: a machine with a GPU may lack DVC and other packages that the rest imports."""
    if config.option.markexpr != "gpu":
        return None
    files = collection_path.rglob("test_*.py") if collection_path.is_dir() else [collection_path]
    return None if any("mark.gpu" in file.read_text(encoding="utf-8") for file in files) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first: one process runs a file, and the others would have to wait for it at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


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
    return partial(tiny_model, config=TINY, head_dropout=0.3)


@pytest.fixture(scope="session")
def make_split() -> Callable[..., Split]:
    """make_split(task, rows, seed): random wordpieces of 1 to 7 per sentence; the first wordpiece tells the label."""

    def make(task: str, rows: int, seed: int = 0, labelled: bool = True) -> Split:
        return tiny_split(task, rows, seed, longest=7, labelled=labelled)

    return make
