"""The whole model: scores equal those composed by hand from transformers' states, one example at a time."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch
from mtbert.data.tokens import TokenStream, Wrapper, lay_out
from mtbert.model.bert import BertConfig, BertEncoder
from mtbert.model.dropout import Dropout
from mtbert.model.heads import build_heads
from mtbert.model.multitask import MultitaskModel
from mtbert.tasks.objective import BinaryCrossEntropy
from mtbert.tasks.paper import known_tasks

CONFIG = BertConfig(vocabulary=40, positions=32, layers=2, hidden=12, heads=3, intermediate=20)
# pooling, features of quora, features of sts (None: the cosine)
VARIANTS = [
    ("cls", None, None),
    ("cls", ["u", "v", "|u-v|"], None),
    ("mean", ["u", "v", "c"], ["u", "v", "c"]),
    ("max", ["|u+v|", "|u-v|"], ["c"]),
]


POOL = {"cls": lambda x: x[0], "mean": lambda x: x.mean(0), "max": lambda x: x.max(0).values}


def embed(model: MultitaskModel, first: np.ndarray, second: np.ndarray | None = None) -> Tensor:
    """A sentence or a pair in a batch of its own."""
    ids = [1, *first, 2] + ([*second, 2] if second is not None else [])
    pooled = POOL[model.pooling](model.encoder(lay_out([(np.array(ids), len(first) + 2)])))
    return pooled if model.encoder.pooler is None else torch.tanh(model.encoder.pooler(pooled))


def by_hand(model: MultitaskModel, task: str, split: Split, row: int, features: Sequence[str] | None) -> Tensor:
    one = split.ids1[split.offsets1[row] : split.offsets1[row + 1]]
    u = embed(model, one)
    if split.ids2 is None or split.offsets2 is None:
        return model.heads["sst"].linear(u)
    two = split.ids2[split.offsets2[row] : split.offsets2[row + 1]]
    v, c = embed(model, two), embed(model, one, two)
    if features is None:
        return F.cosine_similarity(u.float(), v.float(), dim=0)
    values = {"u": u, "v": v, "c": c, "|u-v|": (u - v).abs(), "|u+v|": (u + v).abs()}
    return model.heads[task].linear(torch.cat([values[name] for name in features]))[0]


@pytest.mark.parametrize("task", ["sst", "quora", "sts"])
@pytest.mark.parametrize(("pooling", "quora", "sts"), VARIANTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 5e-6)])
def test_a_score_depends_on_its_example_alone(
    make_model: Callable[..., MultitaskModel], make_split: Callable[..., Split], wrapper: Wrapper, task: str,
    pooling: str, quora: list[str] | None, sts: list[str] | None, dtype: torch.dtype, tolerance: float,
) -> None:  # fmt: skip
    """The head's output is compared before it is rounded to fp32."""
    model, seen = make_model(pooling, quora, sts, config=CONFIG).eval().to(dtype), []
    model.heads[task].register_forward_hook(lambda _module, _input, output: seen.append(output))
    split, rows = make_split(task, 12), np.array([3, 11, 0, 7, 4])
    features = {"sst": None, "quora": quora, "sts": sts}[task]
    with torch.no_grad():
        scores = model(make_batch(task, split, rows, model.views(task), wrapper))
        expected = torch.stack([by_hand(model, task, split, row, features) for row in rows])
    assert scores.shape == ((5, 5) if task == "sst" else (5,)) and scores.dtype == torch.float32
    exact = tolerance if expected.dtype == torch.float64 else 5e-6
    torch.testing.assert_close(seen[0], expected, atol=exact, rtol=exact)
    assert expected.std() > 1e-3, "the examples differ, so that an exchange would show"


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_scores_depend_on_every_weight(
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
def test_reseed_fixes_dropout(
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
    """An engine that returns zero states and counts calls of `release`."""

    def __init__(self) -> None:
        self.released = 0

    def encode(self, stream: TokenStream, first_only: bool = False) -> Tensor:
        return torch.zeros(len(stream.rank) if first_only else len(stream.ids), CONFIG.hidden)

    def release(self) -> None:
        self.released += 1


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_engine_encodes_until_it_is_released(
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
def test_moving_a_model_releases_its_engine(make_model: Callable[..., MultitaskModel], move: str) -> None:
    """An engine is made for one device and type."""
    model, engine = make_model(), Zeros()
    model.engine = engine
    getattr(model, move)(*(["cpu"] if move == "to" else []))
    assert model.engine is None and engine.released == 1


def test_a_copy_has_no_engine_and_the_original_keeps_its_own(make_model: Callable[..., MultitaskModel]) -> None:
    model, engine = make_model(), Zeros()
    model.engine = engine
    other = copy.deepcopy(model)
    assert other.engine is None and model.engine is engine and engine.released == 0
    noises = {id(module.noise) for module in other.modules() if isinstance(module, Dropout)}
    assert noises == {id(other.encoder.noise)}, "its dropouts still draw from one source, its own"
    assert other.encoder.noise is not model.encoder.noise


def test_a_task_may_be_named_like_a_method_of_modules() -> None:
    tasks = known_tasks({"type": {"texts": ["text"], "label": "type", "kind": "binary"}})
    encoder = BertEncoder(CONFIG)
    objectives = {"type": BinaryCrossEntropy(objective="bce", features=["u"])}
    model = MultitaskModel(encoder, "mean", build_heads(objectives, tasks, 12, 0.1, encoder.noise)).double()
    assert model.views("type") == ("u",)
    assert {name: value.dtype for name, value in model.state_dict().items() if name.startswith("heads")} == {
        "heads.type.linear.weight": torch.float64,
        "heads.type.linear.bias": torch.float64,
    }
