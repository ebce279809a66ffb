"""Houlsby adapters, PALs and MTLoRA: their formulas as printed, in fp64, and one task's parts apart from another's."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtbert.data.batches import Batch, make_batch
from mtbert.data.tokens import TokenStream, lay_out
from mtbert.engines import engine_for, kernels
from mtbert.errors import MtbertError
from mtbert.model.active import computing
from mtbert.model.bert import Layer, Padding
from mtbert.model.dropout import Dropout, Noise
from mtbert.model.multitask import MultitaskModel
from mtbert.peft.convert import adapter_state
from mtbert.peft.houlsby import HoulsbyLinear
from mtbert.peft.mtlora import MtLoraLinear, merged_state
from mtbert.tasks.losses import binary_cross_entropy, cross_entropy, mean_squared_error
from mtbert.training.compute import Compute
from mtbert.training.recipe import Recipe
from tests.peft.test_convert import LINEARS
from tests.tiny import TINY, WRAPPER, adapt, tiny_model, tiny_split

TASKS = ("sst", "quora", "sts")
LOSSES = {"sst": cross_entropy, "quora": binary_cross_entropy, "sts": mean_squared_error}
CPU = Compute(torch.device("cpu"), bf16=False)


def disturb(model: nn.Module) -> nn.Module:
    """Change all parameters from their initial values, as training does; to fp64."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.double().eval()


def stream_of(*lengths: int) -> TokenStream:
    return lay_out([(np.arange(3, 3 + length), length) for length in lengths])


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return x @ layer.weight.T + layer.bias


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention of one sequence, head by head."""
    mixed = []
    for q_LK, k_LK, v_LK in zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1), strict=True):
        mixed.append((q_LK @ k_LK.T / q_LK.shape[1] ** 0.5).softmax(1) @ v_LK)
    return torch.cat(mixed, 1)


def attention_of(layer: Layer, x: Tensor) -> Tensor:
    """The mixed values of one sequence, before the output layer."""
    names = ("query", "key", "value")
    return attend(*(linear(x, getattr(layer.attention, name)) for name in names), layer.attention.heads)


def test_a_houlsby_layer_is_figure_2() -> None:
    model = tiny_model(dropout=0.0)
    adapt(model, "houlsby", size=6)
    disturb(model)
    (layer, _), stream = model.encoder.stack(), stream_of(4, 7)
    x = torch.randn(stream.tokens, TINY.hidden, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def adapter(h: Tensor, module: HoulsbyLinear) -> Tensor:
        return h + linear(gelu(linear(h, module.down)), module.up)

    expected = []
    for x_LD in x.split([4, 7]):
        attention, feed_forward = layer.attention, layer.feed_forward
        h = norm(
            x_LD + adapter(linear(attention_of(layer, x_LD), attention.output), attention.output), layer.attention_norm
        )
        fed = linear(gelu(linear(h, feed_forward.up)), feed_forward.down)
        expected.append(norm(h + adapter(fed, feed_forward.down), layer.feed_forward_norm))
    torch.testing.assert_close(layer(x, Padding.of(stream)), torch.cat(expected))


def test_dropout_comes_before_a_houlsby_adapter() -> None:
    class Halved(Dropout):
        def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
            return x / 2

    base = nn.Linear(6, 4)
    layer = HoulsbyLinear(base, 3, Halved(0.5, Noise()))
    disturb(layer)
    x = torch.randn(5, 6, dtype=torch.float64)
    h = linear(x, layer) / 2  # W0 and b0 keep their names
    torch.testing.assert_close(layer(x), h + linear(gelu(linear(h, layer.down)), layer.up))
    model = tiny_model(dropout=0.3)
    adapt(model, "houlsby", size=6)
    assert [layer.dropout.p for layer in model.encoder.stack()] == [0, 0], "and not a second time after it"


@pytest.mark.parametrize("rows", [False, True])
def test_a_pal_is_its_formula(rows: bool) -> None:
    model = tiny_model(dropout=0.0)
    adapt(model, "pal", size=6)
    disturb(model)
    (_, layer), stream = model.encoder.stack(), stream_of(4, 7)
    x = torch.randn(stream.tokens, TINY.hidden, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for task in TASKS:
        projection, pal = model.encoder.pal[task], layer.pal[task]
        expected = []
        for x_LD in x.split([4, 7]):
            small = x_LD @ projection.encode.weight.T
            g = attend(*(linear(small, part) for part in (pal.query, pal.key, pal.value)), TINY.heads)
            ts = g @ projection.decode.weight.T
            h = norm(x_LD + linear(attention_of(layer, x_LD), layer.attention.output), layer.attention_norm)
            fed = linear(gelu(linear(h, layer.feed_forward.up)), layer.feed_forward.down)
            expected.append(norm(h + fed + ts, layer.feed_forward_norm)[: 1 if rows else None])
        with computing(task):
            found = layer(x, Padding.of(stream), stream.offsets[:-1] if rows else None)
        torch.testing.assert_close(found, torch.cat(expected))


def test_mtlora_is_its_formula() -> None:
    torch.manual_seed(0)
    layer = MtLoraLinear(nn.Linear(6, 4), TASKS, 3, 2, 12.0, Dropout(0.0, Noise()))
    disturb(layer)
    x = torch.randn(5, 6, dtype=torch.float64)
    for task in TASKS:
        own = layer.tasks[task]
        whole = layer.weight + 12 / 3 * layer.shared.lora_b @ layer.shared.lora_a + 12 / 2 * own.lora_b @ own.lora_a
        with computing(task):
            torch.testing.assert_close(layer(x), x @ whole.T + layer.bias)


METHODS = ("houlsby", "pal", "mtlora")
ALL = pytest.mark.parametrize("method", METHODS)
PER_TASK = pytest.mark.parametrize("method", ["pal", "mtlora"])
POOLINGS = pytest.mark.parametrize("pooling", ["mean", "cls"])


def adapted(method: str, pooling: str = "mean") -> MultitaskModel:
    model = tiny_model(pooling, dropout=0.0, head_dropout=0.0)
    adapt(model, method)
    disturb(model)
    return model


def batch_of(model: MultitaskModel, task: str, *rows: int) -> Batch:
    return make_batch(task, tiny_split(task, 8), np.array(rows or range(8)), model.views(task), WRAPPER)


@ALL
@POOLINGS
def test_a_new_adapter_is_the_identity_or_near_it(method: str, pooling: str) -> None:
    model = tiny_model(pooling, dropout=0.0, head_dropout=0.0)
    with torch.no_grad():
        before = [model(batch_of(model, task)) for task in TASKS]
        adapt(model, method)
        for scores, task in zip(before, TASKS, strict=True):
            limit = 0.02 if method == "houlsby" else 1e-6
            torch.testing.assert_close(model(batch_of(model, task)), scores, atol=limit, rtol=0)


@ALL
@pytest.mark.parametrize("train_rest", [False, True])
def test_the_trainable_set(method: str, train_rest: bool) -> None:
    model = tiny_model("cls")
    plain = {name for name, _ in model.named_parameters()}
    weights = {f"encoder.layers.{n}.{name}.weight" for n in (0, 1) for name in LINEARS} | {"encoder.pooler.weight"}
    rest = {name for name in plain - weights if name.startswith("encoder.")}
    low_rank = ("shared.lora_a", "shared.lora_b", *(f"tasks.{task}.lora_{part}" for task in TASKS for part in "ab"))
    bottleneck = ("down.weight", "down.bias", "up.weight", "up.bias")
    small = [f"{name}.{part}" for name in ("query", "key", "value") for part in ("weight", "bias")]
    own = {
        "houlsby": {
            f"encoder.layers.{n}.{place}.{part}"
            for n in (0, 1)
            for place in ("attention.output", "feed_forward.down")
            for part in bottleneck
        }
        | {name for name in rest if "norm" in name},
        "pal": {f"encoder.layers.{n}.pal.{task}.{part}" for n in (0, 1) for task in TASKS for part in small}
        | {f"encoder.pal.{task}.{side}code.weight" for task in TASKS for side in ("en", "de")},
        "mtlora": {f"{weight.removesuffix('weight')}{part}" for weight in weights for part in low_rank},
    }[method]
    adapt(model, method, train_rest=train_rest)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == own | (plain - weights - rest) | (rest if train_rest else set())
    assert adapter_state(model).keys() == own, "its own rate, and what converted/RUN holds"
    assert set(model.state_dict()) == plain | own, "each parameter has one name"


@ALL
@POOLINGS
def test_an_example_s_scores_do_not_depend_on_its_batch(method: str, pooling: str) -> None:
    model = adapted(method, pooling)
    for task in TASKS:
        together = model(batch_of(model, task))
        alone = torch.cat([model(batch_of(model, task, row)) for row in range(8)])
        torch.testing.assert_close(together, alone.view(together.shape), atol=1e-6, rtol=1e-6)


@PER_TASK
@POOLINGS
def test_each_task_has_its_own_part(method: str, pooling: str) -> None:
    """A task's scores are a function of what is shared and of its own part, in any order of tasks and in several threads."""
    model = adapted(method, pooling)
    batches = {task: batch_of(model, task) for task in TASKS}
    with torch.no_grad(), ThreadPoolExecutor(4) as threads:
        alone = {task: model(batch) for task, batch in batches.items()}
        for task, scores in threads.map(lambda task: (task, model(batches[task])), [*TASKS, *reversed(TASKS)] * 10):
            assert torch.equal(scores, alone[task])
        for name, parameter in model.encoder.named_parameters():
            if ".sts." in name:
                parameter += 1
        for task, batch in batches.items():
            assert torch.equal(model(batch), alone[task]) == (task != "sts")


@PER_TASK
def test_a_step_on_one_task_leaves_the_others_parts_as_they_are(method: str) -> None:
    model = adapt(tiny_model(), method, train_rest=False)
    engine = engine_for(model.train(), CPU, quiet=True)
    engine.optimizer(Recipe("sequential", 1, 1, 8, 1e-2))
    for step, task in enumerate(("quora", "sts"), start=1):
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        engine.step(batch_of(model, task), LOSSES[task], seed=7, step=step)
        moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        others = {name for name in before for other in TASKS if other != task and f".{other}." in name}
        assert others and not moved & others
        assert any(f".{task}." in name and name.startswith("encoder") for name in moved)


@PER_TASK
def test_a_sentence_of_no_task_is_refused(method: str) -> None:
    model = adapted(method)
    with pytest.raises(MtbertError, match=r"parts for each task.*name one of sst, quora, sts"):
        model.pooled(stream_of(4, 7))
    stream = stream_of(4, 7)
    assert not torch.equal(model.pooled(stream, "sst"), model.pooled(stream, "sts"))


def test_mtlora_is_merged_for_a_task() -> None:
    """What exports that hold one task write: a plain encoder."""
    for pooling in ("mean", "cls"):
        model = adapted("mtlora", pooling)
        for task in TASKS:
            plain = tiny_model(pooling, dropout=0.0, head_dropout=0.0).double().eval()
            plain.encoder.load_state_dict(merged_state(model.encoder, task))
            plain.heads.load_state_dict(model.heads.state_dict())
            torch.testing.assert_close(plain(batch_of(model, task)), model(batch_of(model, task)), atol=1e-6, rtol=1e-6)


def test_sizes_that_do_not_fit_are_refused() -> None:
    for method, settings, message in (
        ("pal", {"size": 5}, r"^adapter\.size is 5, .*2 heads.*such as 6$"),
        ("mtlora", {"task_rank": 33}, r"^adapter\.task_rank is 33, .*lower it to at most 32$"),
    ):
        with pytest.raises(MtbertError, match=message):
            adapt(tiny_model(), method, **settings)


@pytest.mark.skipif(not kernels()[0], reason="needs the kernels")
@pytest.mark.parametrize(("size", "fast"), [(128, True), (130, False)])
def test_heads_of_pals_wider_than_the_kernel_s_take_the_plain_path(size: int, fast: bool) -> None:
    model = tiny_model()
    adapt(model, "pal", size=size)
    engine_for(model, CPU)
    assert (model.engine is not None) == fast


class Other(Layer):
    """A layer that no engine knows."""

    def forward(self, x_TD: Tensor, padding: Padding, rows: Tensor | None = None) -> Tensor:
        return super().forward(x_TD, padding, rows) + 1


def test_the_fast_engines_refuse_layers_that_they_do_not_know(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would leave out what the layer adds. The parity matrix has the methods that they take."""
    model = tiny_model(dropout=0.0, head_dropout=0.0).eval()
    model.encoder.layers[0].__class__ = Other
    batch = batch_of(model, "sts")
    scores = model(batch)
    engine_for(model, CPU)
    assert model.engine is None
    assert "the run's adapter changes them" in capsys.readouterr().err
    if kernels()[0]:
        monkeypatch.setattr("mtbert.fast._knows", lambda *_: True)
        engine_for(model, CPU)
        assert not torch.allclose(model(batch), scores, atol=0.01)
