"""Products and their gradients are those of the layers, whichever of them are adapted."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.operations import Count
from mtbert.fast.cuda.passes import Passes
from mtbert.fast.cuda.products import Products
from mtbert.model.bert import BertConfig, BertEncoder, Layer
from mtbert.model.dropout import Dropout, Noise
from mtbert.peft.dora import DoraLinear
from mtbert.peft.lora import LoraLinear

CONFIG = BertConfig(vocabulary=20, positions=8, layers=2, hidden=8, heads=2, intermediate=12)


def adapted(one: nn.Linear, method: type[LoraLinear] = LoraLinear, dropout: float = 0.0) -> LoraLinear:
    torch.manual_seed(2)
    layer = method(one, 2, 2.0, Dropout(dropout, Noise()))
    nn.init.normal_(layer.lora_b)
    return layer.double()


def _none(layer: Layer) -> None: ...


def _query_and_value(layer: Layer) -> None:
    layer.attention.query, layer.attention.value = adapted(layer.attention.query), adapted(layer.attention.value)  # type: ignore[assignment]


def _all_of_attention(layer: Layer) -> None:
    for name in ("query", "key", "value", "output"):
        setattr(layer.attention, name, adapted(getattr(layer.attention, name), DoraLinear))


def _with_dropout(layer: Layer) -> None:
    layer.attention.key = adapted(layer.attention.key, dropout=0.5).eval()  # type: ignore[assignment]


def _frozen(layer: Layer) -> None:
    layer.requires_grad_(False)
    layer.attention.query.bias.requires_grad_(True)


def outputs(encoder: BertEncoder, products: Products | None) -> Tensor:
    """Of all linear layers, for made-up inputs."""
    torch.manual_seed(1)
    found = []
    for layer in encoder.stack():
        attention, feed_forward = layer.attention, layer.feed_forward
        for unit in (
            (attention.query, attention.key, attention.value),
            (attention.output,),
            (feed_forward.up,),
            (feed_forward.down,),
        ):
            x = torch.randn(5, unit[0].weight.shape[1], dtype=torch.double)
            if products is None:
                found += [one(x) for one in unit]
            else:
                y, bias = products(x, *unit)
                found.append(y if bias is None else y + bias)
    return torch.cat([one.flatten(1) for one in found], dim=1)


class Biasing(Passes):
    """Passes that add the biases."""

    adds_bias = True


@pytest.mark.parametrize("passes", [Passes, Biasing])
@pytest.mark.parametrize("change", [_none, _query_and_value, _all_of_attention, _with_dropout, _frozen])
def test_outputs_and_gradients_are_the_layers_own(change: Callable[[Layer], None], passes: type[Passes]) -> None:
    gradients, found = [], []
    for fast in (False, True):
        torch.manual_seed(0)
        encoder = BertEncoder(CONFIG, 0.0).double()
        for layer in encoder.stack():
            change(layer)
        products = Products(encoder, None, passes)
        with products.ready():
            found.append(outputs(encoder, products if fast else None))
        found[-1].square().sum().backward()
        gradients.append({name: one.grad for name, one in encoder.named_parameters() if one.grad is not None})
    torch.testing.assert_close(found[1], found[0])
    assert gradients[0].keys() == gradients[1].keys()
    for name, one in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], one, msg=name)


def test_a_step_casts_no_weight_and_no_gradient_by_itself() -> None:
    encoder = BertEncoder(CONFIG, 0.0)
    products = Products(encoder, torch.bfloat16, Passes)
    with Count() as seen, products.ready():
        x = torch.randn(5, 8, dtype=torch.bfloat16)
        for layer in encoder.stack():
            x = products(x, layer.attention.output)[0]
        x.sum().backward()
    assert all(layer.attention.output.weight.grad.dtype == torch.float32 for layer in encoder.stack())  # type: ignore[union-attr]
    # A CPU has no product of bf16 with an fp32 result, so two casts for each take its place here.
    assert seen.operations["_foreach_copy_"] == 1 and seen.operations["_to_copy"] == 2 * 2


def test_a_change_of_weights_is_seen_in_the_next_step() -> None:
    encoder = BertEncoder(CONFIG, 0.0).double()
    products = Products(encoder, None, Passes)
    with products.ready():
        before = outputs(encoder, products)
    with torch.no_grad():
        encoder.stack()[0].attention.key.bias += 1
    with products.ready():
        after = outputs(encoder, products)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, outputs(encoder, None))
