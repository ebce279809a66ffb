"""Further pretraining: the head is transformers', the text is that of the given splits, and a resumed run ends in the same bits."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from mtbert.data.tokens import Wrapper
from mtbert.engines import engine_for, kernels
from mtbert.errors import MtbertError
from mtbert.model.masked import MaskedTokenHead
from mtbert.model.multitask import MultitaskModel
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.weights import to_hf
from mtbert.training import conflicts, further
from mtbert.training.engine import Plain
from mtbert.training.further import Sentences, pretrain_further
from mtbert.training.log import Observer, Step
from mtbert.training.recipe import FurtherPretraining
from tests.tiny import TINY, WRAPPER, tiny_model, tiny_split
from tests.training.test_loop import CPU, Interruption

ENGINES = {"plain": Plain, **({"fast": engine_for} if kernels()[0] else {})}
MASK = 39
DATA = [tiny_split("sst", 7), tiny_split("quora", 5)]
SETTINGS = FurtherPretraining(steps=6, batch_size=4, learning_rate=0.01)


class Dying(Observer):
    """Dies once, in a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, step: Step) -> None:
        if step.step == self.at:
            self.at = 0
            raise Interruption


def run(
    work: Path, engine: Callable[..., Any], die: int = 0, seconds: float = 0.0, **settings: Any
) -> tuple[list[float], MultitaskModel]:
    """Losses and model of a run that is restarted until it ends."""
    watch = Dying(die)
    while True:
        model = tiny_model()
        model.engine = engine(model, CPU)
        torch.manual_seed(watch.at)
        try:
            losses = pretrain_further(
                model.engine,  # type: ignore[arg-type]
                DATA,
                SETTINGS.model_copy(update=settings),
                seed=11,
                mask=MASK,
                wrapper=WRAPPER,
                observers=[watch],
                work=work,
                checkpoint_seconds=seconds,
            )
        except Interruption:
            continue
        return losses, model


def same(one: tuple[list[float], MultitaskModel], other: tuple[list[float], MultitaskModel]) -> bool:
    theirs = other[1].state_dict()
    return one[0] == other[0] and all(torch.equal(value, theirs[name]) for name, value in one[1].state_dict().items())


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
def test_interrupted_at_any_step_it_ends_in_the_same_bits(tmp_path: Path, engine: Any) -> None:
    undisturbed = run(tmp_path / "undisturbed", engine, seconds=1e9)
    assert len(undisturbed[0]) == 6 and not any("masked" in name for name in undisturbed[1].state_dict())
    for step in range(1, 7):
        assert same(run(tmp_path / str(step), engine, step), undisturbed), step
    assert same(run(tmp_path / "undisturbed", engine), undisturbed), "once done, nothing is trained again"


def test_the_comparison_notices_masks_that_are_not_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, real = np.random.default_rng(0), further.masked
    monkeypatch.setattr(further, "masked", lambda *arguments: real(*arguments[:-1], rng))
    assert not same(run(tmp_path / "one", Plain, 3), run(tmp_path / "other", Plain))


def test_the_loss_falls_and_the_tasks_heads_stay(tmp_path: Path) -> None:
    losses, model = run(tmp_path, Plain, steps=60, seconds=1e9)
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    before = tiny_model().heads.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in model.heads.state_dict().items())


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
def test_loss_and_gradients_are_transformers(engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one step without dropout; the word embedding's gradient is the sum of the lookup's and the tied decoder's."""
    model = tiny_model(dropout=0.0)
    trained = engine(model, CPU)
    seen: dict[str, Tensor] = {}
    heads: list[MaskedTokenHead] = []
    real_optimizer, streams = trained.optimizer, []

    def optimizer(recipe: Any) -> Any:
        found = real_optimizer(recipe)
        heads.append(model.get_submodule("masked"))  # type: ignore[arg-type]

        def record() -> None:
            seen.update({name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None})

        found.step = record
        return found

    def seen_masked(*arguments: Any) -> Any:
        streams.append(real_masked(*arguments))
        return streams[-1]

    trained.optimizer, real_masked = optimizer, further.masked
    monkeypatch.setattr(further, "masked", seen_masked)
    monkeypatch.setattr(
        Sentences, "stream", lambda self, rows, wrapper, real=Sentences.stream: real(self, rows[:1], wrapper)
    )
    settings = SETTINGS.model_copy(update={"steps": 1})
    (loss,) = pretrain_further(
        trained, DATA, settings, seed=11, mask=MASK, wrapper=WRAPPER, work=tmp_path, checkpoint_seconds=1e9
    )
    (masking,), head = streams, heads[0]
    config = transformers.BertConfig(**BERT.written_config(TINY), hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    theirs = transformers.BertForMaskedLM(config)
    encoder = to_hf({name: value for name, value in model.encoder.state_dict().items() if "pooler" not in name})
    theirs.bert.load_state_dict(encoder, strict=False)
    with torch.no_grad():
        theirs.cls.predictions.transform.dense.load_state_dict(head.dense.state_dict())
        theirs.cls.predictions.bias.copy_(head.bias)
    tokens = int(np.flatnonzero(masking.ids == WRAPPER.sep)[-1]) + 1  # one sentence, then filler
    labels = torch.full((1, tokens), -100)
    labels[0, masking.places] = torch.from_numpy(masking.targets)
    expected = theirs(input_ids=torch.from_numpy(masking.ids[None, :tokens]), labels=labels).loss
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    pairs = {
        "encoder.embeddings.token.weight": theirs.bert.embeddings.word_embeddings.weight,
        "encoder.layers.0.attention.query.weight": theirs.bert.encoder.layer[0].attention.self.query.weight,
        "masked.dense.weight": theirs.cls.predictions.transform.dense.weight,
        "masked.bias": theirs.cls.predictions.bias,
    }
    for name, parameter in pairs.items():
        torch.testing.assert_close(seen[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_every_sentence_of_the_splits_is_read_and_no_other() -> None:
    found = Sentences(DATA)
    expected = [
        ids[offsets[row] : offsets[row + 1]].tolist()
        for ids, offsets in [
            (DATA[0].ids1, DATA[0].offsets1),
            (DATA[1].ids1, DATA[1].offsets1),
            (DATA[1].ids2, DATA[1].offsets2),
        ]
        if ids is not None and offsets is not None
        for row in range(len(offsets) - 1)
    ]
    assert [found[n].tolist() for n in range(len(found))] == expected
    ids = found.stream(np.array([3, 0]), Wrapper(1, 2, 48)).ids.tolist()
    assert ids.count(1) == ids.count(2) == 2


def test_its_keys_are_none_of_training() -> None:
    """A key of numpy's generators is a list of 32-bit words, padded with zeros: the seed must add words that no other key has."""

    def words(seed: int, *rest: int) -> list[int]:
        return np.random.SeedSequence([seed, *rest]).generate_state(4).tolist()

    training = [words(7, *rest) for rest in product(range(4), repeat=3)]
    apart = [
        words(7 + shift, *rest) for shift in (further.APART, conflicts.APART) for rest in product(range(4), repeat=2)
    ]
    assert not any(one in training for one in apart)
    assert words(7 + 2**32, 0) in training, "as with a smaller shift"


def test_a_loss_that_is_not_finite_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(further.F, "cross_entropy", lambda scores, _: scores.sum() * torch.inf)
    with pytest.raises(
        MtbertError,
        match=r"^step 1 of further_pretraining: the loss is -?(inf|nan); lower this run's further_pretraining.learning_rate",
    ):
        run(tmp_path, Plain)


def test_a_text_of_special_tokens_alone_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer gives a text "[SEP]" that token's id; only those that the wrapper adds are never masked."""
    monkeypatch.setattr(Sentences, "__getitem__", lambda *_: np.array([WRAPPER.sep], np.uint16))
    assert len(run(tmp_path, Plain)[0]) == SETTINGS.steps


def test_the_head_s_initial_weights_and_the_sentences_follow_from_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again, other = (MaskedTokenHead(TINY, seed).dense.weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    losses, _ = run(tmp_path / "apart", Plain)
    monkeypatch.setattr(further, "APART", 0)
    assert run(tmp_path / "not", Plain)[0] != losses
