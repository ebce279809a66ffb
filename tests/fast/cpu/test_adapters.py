"""The product with its low-rank part and its factor against the plain formula and autograd, in fp64."""

import pytest
import torch
from torch import Tensor

from mtbert.peft.product import AdapterProduct, Frozen

O, I, R, T, SCALE = 5, 7, 3, 11, 0.5  # noqa: E741


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parts(dora: bool, layers: int = 2) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """x, W0 of each layer, and A of each, B of each and, for DoRA, m of each."""
    base = [randn(O, I, seed=n) for n in range(layers)]
    shapes = [(R, I)] * layers + [(O, R)] * layers + ([(O,)] * layers if dora else [])
    parameters = [randn(*shape, seed=10 + n).requires_grad_() for n, shape in enumerate(shapes)]
    return randn(T, I, seed=9).requires_grad_(), base, parameters


def frozen(base: list[Tensor], dora: bool, exact: bool) -> Frozen:
    wide = torch.zeros(len(base) * O, I + len(base) * R, dtype=torch.float64)
    wide[:, :I] = torch.cat(base)
    return Frozen(wide, tuple(w.square().sum(1) for w in base) if dora else None, SCALE, exact)


def plain(x: Tensor, base: list[Tensor], parameters: list[Tensor], exact: bool) -> list[Tensor]:
    """z and, for DoRA, the factor."""
    layers = len(base)
    whole = [
        w + SCALE * b @ a for w, a, b in zip(base, parameters[:layers], parameters[layers : 2 * layers], strict=True)
    ]
    z = torch.cat([x @ w.T for w in whole], 1)
    if len(parameters) == 2 * layers:
        return [z]
    norms = [(w if exact else w.detach()).norm(dim=1) for w in whole]
    return [z, torch.cat([m / n for m, n in zip(parameters[2 * layers :], norms, strict=True)])]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("dora", "exact"), [(False, False), (True, False), (True, True)])
def test_product_and_every_gradient_are_the_formula_s(dora: bool, exact: bool, layers: int) -> None:
    x, base, parameters = parts(dora, layers)
    ours = [one for one in AdapterProduct.apply(x, frozen(base, dora, exact), *parameters) if one is not None]
    theirs = plain(x, base, parameters, exact)
    cotangents = [randn(*one.shape, seed=30 + n) for n, one in enumerate(theirs)]
    assert len(ours) == len(theirs) == 1 + dora
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)
    gradients = [torch.autograd.grad(outputs, [x, *parameters], cotangents) for outputs in (ours, theirs)]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("dora", [False, True])
def test_an_input_that_needs_no_gradient_gets_none(dora: bool) -> None:
    x, base, parameters = parts(dora)
    z, _ = AdapterProduct.apply(x.detach(), frozen(base, dora, True), *parameters)
    theirs = torch.autograd.grad(plain(x, base, parameters, True)[0].sum(), parameters[:4])
    for mine, other in zip(torch.autograd.grad(z.sum(), parameters[:4]), theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_weights_changed_between_forward_and_backward_are_refused() -> None:
    x, base, parameters = parts(True)
    z, _ = AdapterProduct.apply(x, frozen(base, True, True), *parameters)
    with torch.no_grad():
        parameters[2].add_(1)  # a B
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_a_second_forward_leaves_the_first_one_s_backward_as_it_was() -> None:
    """Both write s B into the same place; with weights unchanged, the same."""
    x, base, parameters = parts(True)
    kept = frozen(base, True, True)
    z, _ = AdapterProduct.apply(x, kept, *parameters)
    alone = torch.autograd.grad(z.sum(), [x, *parameters], retain_graph=True)
    with torch.no_grad():
        AdapterProduct.apply(2 * x, kept, *parameters)
    for mine, other in zip(torch.autograd.grad(z.sum(), [x, *parameters]), alone, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)
