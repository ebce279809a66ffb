"""The whole model: scores composed by hand from transformers' states, and independence of neighbours."""

import copy
import pickle
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch
from mtbert.data.tokens import TokenStream, Wrapper
from mtbert.model.bert import BertConfig
from mtbert.model.dropout import Dropout
from mtbert.model.multitask import MultitaskModel
from mtbert.pretrained.weights import LAYER_NAMES, TOP_NAMES

CONFIG = BertConfig(vocabulary=40, positions=32, layers=2, hidden=12, heads=3, intermediate=20)
# pooling, features of quora, features of sts (None: the cosine)
VARIANTS = [
    ("cls", None, None),
    ("cls", ["u", "v", "|u-v|"], None),
    ("mean", ["u", "v", "c"], ["u", "v", "c"]),
    ("max", ["|u+v|", "|u-v|"], ["c"]),
]


def their_model(model: MultitaskModel) -> torch.nn.Module:
    """transformers' BertModel with our encoder's weights: the mapping of weights.py, backwards."""
    transformers, config = pytest.importorskip("transformers"), model.encoder.config
    theirs = transformers.BertModel._from_config(
        transformers.BertConfig(
            vocab_size=config.vocabulary,
            max_position_embeddings=config.positions,
            num_hidden_layers=config.layers,
            hidden_size=config.hidden,
            num_attention_heads=config.heads,
            intermediate_size=config.intermediate,
        ),
        attn_implementation="eager",
    )
    ours = model.encoder.state_dict()
    state = {name: ours[our] for name, our in TOP_NAMES.items() if our in ours}
    for layer in range(config.layers):
        for their, our in LAYER_NAMES.items():
            for kind in ("weight", "bias"):
                state[f"encoder.layer.{layer}.{their}.{kind}"] = ours[f"layers.{layer}.{our}.{kind}"]
    theirs.load_state_dict(state, strict=False)
    return theirs.eval()


def embed(theirs: torch.nn.Module, first: list[int], second: list[int] | None, pooling: str) -> Tensor:
    ids = [1, *first, 2] + ([*second, 2] if second is not None else [])
    segments = [0] * (len(first) + 2) + [1] * (len(ids) - len(first) - 2)
    out = theirs(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([segments]))
    states = out.last_hidden_state[0]
    return {"cls": out.pooler_output[0], "mean": states.mean(0), "max": states.max(0).values}[pooling]


def sentence(split: Split, number: int, row: int) -> list[int]:
    ids, offsets = (split.ids1, split.offsets1) if number == 1 else (split.ids2, split.offsets2)
    assert ids is not None and offsets is not None
    return ids[offsets[row] : offsets[row + 1]].tolist()


def by_hand(model: MultitaskModel, task: str, split: Split, rows: np.ndarray, features: Sequence[str] | None) -> Tensor:
    theirs, scores = their_model(model), []
    for row in rows:
        u = embed(theirs, sentence(split, 1, row), None, model.pooling)
        if task == "sst":
            scores.append(model.heads["sst"].linear(u))
            continue
        v = embed(theirs, sentence(split, 2, row), None, model.pooling)
        c = embed(theirs, sentence(split, 1, row), sentence(split, 2, row), model.pooling)
        if features is None:
            scores.append(F.cosine_similarity(u, v, dim=0))
        else:
            values = {"u": u, "v": v, "c": c, "|u-v|": (u - v).abs(), "|u+v|": (u + v).abs()}
            scores.append(model.heads[task].linear(torch.cat([values[name] for name in features]))[0])
    return torch.stack(scores).detach()


@pytest.mark.parametrize("task", ["sst", "quora", "sts"])
@pytest.mark.parametrize(("pooling", "quora", "sts"), VARIANTS)
def test_scores_equal_a_composition_by_hand(
    make_model: Callable[..., MultitaskModel],
    make_split: Callable[..., Split],
    wrapper: Wrapper,
    pooling: str,
    quora: list[str] | None,
    sts: list[str] | None,
    task: str,
) -> None:
    model = make_model(pooling, quora, sts, config=CONFIG).eval()
    split, rows = make_split(task, 12), np.array([3, 11, 0, 7, 4])
    with torch.no_grad():
        ours = model(make_batch(task, split, rows, model.views(task), wrapper))
    assert ours.shape == ((5, 5) if task == "sst" else (5,))
    expected = by_hand(model, task, split, rows, {"sst": ["u"], "quora": quora, "sts": sts}[task])
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def scores(model: MultitaskModel, task: str, split: Split, rows: Sequence[int], wrapper: Wrapper) -> Tensor:
    """The head's output before it becomes fp32."""
    seen: list[Tensor] = []
    hook = model.heads[task].register_forward_hook(lambda _module, _input, output: seen.append(output))
    with torch.no_grad():
        model(make_batch(task, split, np.array(rows), model.views(task), wrapper))
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("task", ["sst", "quora", "sts"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 5e-6)])
@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_a_score_does_not_depend_on_its_batch(
    make_model: Callable[..., MultitaskModel],
    make_split: Callable[..., Split],
    wrapper: Wrapper,
    task: str,
    dtype: torch.dtype,
    tolerance: float,
    pooling: str,
) -> None:
    model = make_model(pooling, config=CONFIG).eval().to(dtype)
    split = make_split(task, 10)
    together = scores(model, task, split, range(10), wrapper)
    assert together.dtype == dtype
    assert together.std() > 1e-3, "the examples differ, so that an exchange would show"
    backwards = scores(model, task, split, range(9, -1, -1), wrapper)
    torch.testing.assert_close(backwards.flip(0), together, atol=tolerance, rtol=0)
    for row in range(10):
        torch.testing.assert_close(scores(model, task, split, [row], wrapper)[0], together[row], atol=tolerance, rtol=0)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_a_model_holds_no_weight_that_its_scores_do_not_depend_on(
    make_model: Callable[..., MultitaskModel], make_split: Callable[..., Split], wrapper: Wrapper, pooling: str
) -> None:
    model = make_model(pooling)
    for task in ("sst", "quora", "sts"):
        model(make_batch(task, make_split(task, 6), np.arange(6), model.views(task), wrapper)).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_views_are_those_of_the_heads(make_model: Callable[..., MultitaskModel]) -> None:
    model = make_model("cls", ["u", "v"], ["c"])
    assert (model.views("sst"), model.views("quora"), model.views("sts")) == (("u",), ("u", "v"), ("c",))
    assert make_model("cls", None, None).views("sts") == ("u", "v")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_reseed_fixes_all_that_is_random(
    make_model: Callable[..., MultitaskModel],
    make_split: Callable[..., Split],
    wrapper: Wrapper,
    pooling: str,
) -> None:
    model = make_model(pooling, config=CONFIG).train()
    batch = make_batch("quora", make_split("quora", 6), np.arange(6), model.views("quora"), wrapper)

    def draw(seed: int, step: int) -> Tensor:
        model.reseed(seed, step)
        return model(batch)

    assert torch.equal(draw(1, 1), draw(1, 1))
    assert not torch.equal(draw(1, 1), draw(1, 2))
    assert not torch.equal(draw(1, 1), draw(2, 1))


def test_scores_are_fp32_under_bf16(
    make_model: Callable[..., MultitaskModel], make_split: Callable[..., Split], wrapper: Wrapper
) -> None:
    for variant in VARIANTS:
        model = make_model(*variant, config=CONFIG).eval()
        for task in ("sst", "quora", "sts"):
            batch = make_batch(task, make_split(task, 4), np.arange(4), model.views(task), wrapper)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert model(batch).dtype == torch.float32


# ---- the seam: an engine that encodes for the model


class Zeros:
    """An engine whose states are zero, and which counts how often it was released."""

    def __init__(self) -> None:
        self.released = 0

    def encode(self, stream: TokenStream, first_only: bool = False) -> Tensor:
        return torch.zeros(len(stream.rank) if first_only else len(stream.ids), CONFIG.hidden)

    def release(self) -> None:
        self.released += 1


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_an_engine_encodes_and_release_gives_the_encoder_back(
    make_model: Callable[..., MultitaskModel], make_split: Callable[..., Split], wrapper: Wrapper, pooling: str
) -> None:
    model, engine = make_model(pooling, config=CONFIG).eval(), Zeros()
    batch = make_batch("sst", make_split("sst", 4), np.arange(4), ("u",), wrapper)
    before, names = model(batch), list(model.state_dict())
    model.engine = engine
    assert list(model.state_dict()) == names
    zero = model(batch)
    torch.testing.assert_close(zero, zero[:1].expand(4, 5))
    assert not torch.equal(zero, before)
    model.release()
    model.release()
    assert engine.released == 1 and model.engine is None
    assert torch.equal(model(batch), before)


@pytest.mark.parametrize("move", ["double", "to", "cpu"])
def test_a_model_that_moves_lets_go_of_its_engine(make_model: Callable[..., MultitaskModel], move: str) -> None:
    """It was made for one place and type."""
    model, engine = make_model(), Zeros()
    model.engine = engine
    getattr(model, move)(*(["cpu"] if move == "to" else []))
    assert model.engine is None and engine.released == 1


@pytest.mark.parametrize("way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_no_engine_and_the_original_keeps_its_own(
    make_model: Callable[..., MultitaskModel], way: Callable[[MultitaskModel], MultitaskModel]
) -> None:
    model, engine = make_model(), Zeros()
    model.engine = engine
    other = way(model)
    assert other.engine is None and model.engine is engine and engine.released == 0
    noises = {id(module.noise) for module in other.modules() if isinstance(module, Dropout)}
    assert noises == {id(other.encoder.noise)}, "its dropouts still draw from one source, its own"
    assert other.encoder.noise is not model.encoder.noise
