"""sentence-transformers encodes and scores as mtbert does."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mtbert
from mtbert.errors import MtbertError
from mtbert.export.command import main
from tests.export.conftest import CROSS, LINEAR, LONG, PAIRS, SENTENCES, expected

library = pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.filterwarnings("ignore::mtbert.LongInputWarning")


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_a_bi_encoder_gives_the_same_vectors(made: Callable[..., Path], tmp_path: Path, pooling: str) -> None:
    folder = made(pooling, LINEAR)
    main(str(folder), tmp_path / "out", "sentence-transformers")
    vectors = library.SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(SENTENCES)
    ours = mtbert.load(folder, device="cpu", precision="fp32").encode(SENTENCES)
    np.testing.assert_allclose(vectors, ours, atol=1e-5)


@pytest.mark.parametrize(("pooling", "pair_size"), [("cls", None), ("mean", None), ("cls", 6)])
@pytest.mark.parametrize("task", ["quora", "sts"])
def test_a_cross_encoder_gives_the_same_scores(
    made: Callable[..., Path], tmp_path: Path, pooling: str, pair_size: int | None, task: str
) -> None:
    folder = made(pooling, CROSS, pair_size=pair_size)
    main(str(folder), tmp_path / "out", "sentence-transformers", task)
    pairs = [pair for pair in PAIRS if pair != (LONG, LONG)]
    own_code = pooling != "cls" or pair_size is not None
    scores = library.CrossEncoder(str(tmp_path / "out"), device="cpu", trust_remote_code=own_code).predict(pairs)
    ours = expected(mtbert.load(folder, device="cpu", precision="fp32"), task, pairs)
    np.testing.assert_allclose(scores, ours[:, -1], atol=1e-5)


@pytest.mark.parametrize("task", ["sst", "quora"])
def test_a_head_over_more_than_the_pair_is_no_cross_encoder(
    made: Callable[..., Path], tmp_path: Path, task: str
) -> None:
    with pytest.raises(
        MtbertError, match=rf"--task {task}: {task} reads u.*; use --to transformers, or leave --task out"
    ):
        main(str(made("mean", LINEAR)), tmp_path / "out", "sentence-transformers", task)
    assert not list(tmp_path.iterdir())
