"""The whole model: scores composed by hand from transformers' states, and independence of neighbours."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch
from mtbert.data.tokens import Wrapper
from mtbert.model.bert import BertConfig, BertEncoder
from mtbert.model.heads import build_heads
from mtbert.model.multitask import MultitaskModel
from mtbert.pretrained.weights import LAYER_NAMES, TOP_NAMES
from mtbert.tasks.objective import BinaryCrossEntropy
from mtbert.tasks.paper import known_tasks

# One that our kernels do not take, and one that they do.
CONFIGS = {
    "torch": BertConfig(vocabulary=40, positions=32, layers=2, hidden=12, heads=3, intermediate=20),
    "kernels": BertConfig(vocabulary=40, positions=32, layers=2, hidden=32, heads=2, intermediate=48),
}
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


@pytest.mark.parametrize("way", CONFIGS)
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
    way: str,
) -> None:
    model = make_model(pooling, quora, sts, config=CONFIGS[way]).eval()
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


@pytest.mark.parametrize("way", CONFIGS)
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
    way: str,
) -> None:
    model = make_model(pooling, config=CONFIGS[way]).eval().to(dtype)
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


@pytest.mark.parametrize("way", CONFIGS)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_reseed_fixes_all_that_is_random(
    make_model: Callable[..., MultitaskModel],
    make_split: Callable[..., Split],
    wrapper: Wrapper,
    pooling: str,
    way: str,
) -> None:
    model = make_model(pooling, config=CONFIGS[way]).train()
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
    for variant, way in product(VARIANTS, CONFIGS):
        model = make_model(*variant, config=CONFIGS[way]).eval()
        for task in ("sst", "quora", "sts"):
            batch = make_batch(task, make_split(task, 4), np.arange(4), model.views(task), wrapper)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert model(batch).dtype == torch.float32


def test_a_declared_task_may_be_called_like_a_method_of_modules() -> None:
    tasks = known_tasks({"type": {"texts": ["text"], "label": "type", "kind": "binary"}})
    encoder = BertEncoder(CONFIGS["torch"])
    objectives = {"type": BinaryCrossEntropy(objective="bce", features=["u"])}
    model = MultitaskModel(encoder, "mean", build_heads(objectives, tasks, 12, 0.1, encoder.noise)).double()
    assert model.views("type") == ("u",)
    assert {name: value.dtype for name, value in model.state_dict().items() if name.startswith("heads")} == {
        "heads.type.linear.weight": torch.float64,
        "heads.type.linear.bias": torch.float64,
    }
