"""Attention by Triton's kernels equals torch's, sequence by sequence; on a CPU, Triton's interpreter runs the kernels."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mtbert.fast.cuda.passes import Ragged
from mtbert.model.dropout import Dropout, Noise

pytest.importorskip("triton")
from mtbert.fast.cuda import attention, choice
from mtbert.fast.cuda.fused import FusedPasses

pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS = 3
BLOCK = int(attention.BACKWARD["BLOCK"])
LENGTHS = [0, 1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3]


def ragged(lengths: list[int]) -> Ragged:
    offsets = torch.tensor([0, *lengths], device=DEVICE).cumsum(0).int()
    return Ragged(offsets, max(lengths))


def made_up(lengths: list[int], width: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """q, k and v side by side, and the gradient of the output."""
    draw = torch.Generator().manual_seed(width)
    qkv = torch.randn(sum(lengths), 3 * HEADS * width, generator=draw)
    return qkv.to(DEVICE, dtype), torch.randn(sum(lengths), HEADS * width, generator=draw).to(DEVICE, dtype)


def fused(qkv: Tensor, lengths: list[int], grad: Tensor, p: float = 0.0, passes: int = 1) -> list[Tensor]:
    """The output of the last of some passes, and the gradient of q, k and v."""
    kind, x = FusedPasses(), qkv.clone().requires_grad_()
    for _ in range(passes):
        out = kind.attention(x, ragged(lengths), HEADS, Dropout(p, Noise()))
    out.backward(grad)
    assert x.grad is not None
    return [out.detach(), x.grad]


def exact(qkv: Tensor, lengths: list[int], grad: Tensor) -> list[Tensor]:
    """The same by torch, in double precision."""
    x = qkv.double().requires_grad_()
    q, k, v = (one.unflatten(1, (HEADS, -1)).transpose(0, 1) for one in x.chunk(3, 1))
    parts = zip(*(one.split(lengths, 1) for one in (q, k, v)), strict=True)
    out = torch.cat([F.scaled_dot_product_attention(*part) for part in parts], 1).transpose(0, 1).flatten(1)
    out.backward(grad.double())
    assert x.grad is not None
    return [out.detach(), x.grad]


@pytest.mark.parametrize("width", [16, 12])
def test_attention_is_torch_s(width: int) -> None:
    qkv, grad = made_up(LENGTHS, width)
    for found, expected in zip(fused(qkv, LENGTHS, grad), exact(qkv, LENGTHS, grad), strict=True):
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)


def test_in_narrow_types_up_to_rounding() -> None:
    narrow = torch.bfloat16 if DEVICE == "cuda" else torch.float16  # Triton's interpreter cannot multiply bf16
    qkv, grad = made_up(LENGTHS, 16, narrow)
    for found, expected in zip(fused(qkv, LENGTHS, grad), exact(qkv, LENGTHS, grad), strict=True):
        assert found.dtype == narrow
        assert float((found.double() - expected).norm() / expected.norm()) < 0.01


def test_large_scores_do_not_overflow() -> None:
    lengths = [5, BLOCK + 7]
    qkv, grad = made_up(lengths, 16)
    for found, expected in zip(fused(100 * qkv, lengths, grad), exact(100 * qkv, lengths, grad), strict=True):
        torch.testing.assert_close(found.double(), expected, atol=1e-2, rtol=1e-2)


def weights(p: float, seed: int, passes: int = 1) -> Tensor:
    """The factors of all attention weights of a sequence with equal scores: v is the identity, (heads, queries, keys)."""
    torch.manual_seed(seed)
    length = width = 2 * BLOCK
    qkv = torch.zeros(length, 3, HEADS, width, device=DEVICE)
    qkv[:, 2] = torch.eye(length, device=DEVICE)[:, None]
    out, _ = fused(qkv.flatten(1), [length], torch.zeros(length, HEADS * width, device=DEVICE), p, passes)
    return length * out.unflatten(1, (HEADS, -1)).transpose(0, 1)


def test_dropout_drops_the_share_it_should() -> None:
    one, again, other, later = weights(0.25, 1), weights(0.25, 1), weights(0.25, 2), weights(0.25, 1, passes=2)
    assert torch.equal(one, again)
    kept = one.isclose(torch.tensor(4 / 3, device=DEVICE))
    assert torch.all(kept | (one == 0))
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=0.03)
    # Neither seeds, passes, heads, queries nor keys repeat each other.
    for different in (other != 0, later != 0, kept.roll(1, 0), kept.roll(1, 1), kept.roll(1, 2), kept.roll(BLOCK, 2)):
        assert float((kept == different).float().mean()) == pytest.approx(0.625, abs=0.04)


@pytest.mark.parametrize("lengths", [[7, 20], [BLOCK + 5]], ids=["one block", "two blocks"])
def test_forward_and_backward_have_one_mask(lengths: list[int]) -> None:
    """By differences, of q, k and v."""
    qkv, grad = made_up(lengths, 16)
    step = 1e-2 * torch.randn(qkv.shape, generator=torch.Generator().manual_seed(3)).to(DEVICE)

    def loss(x: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(5)
        out, of_x = fused(x, lengths, grad, 0.3)
        return (out.double() * grad.double()).sum(), of_x

    for part in (slice(0, 32), slice(32, 64), slice(64, 96)):
        along = torch.zeros_like(step)
        along[:, part] = step[:, part]
        by_difference = (loss(qkv + along)[0] - loss(qkv - along)[0]) / 2
        of_x = loss(qkv)[1]
        assert float(by_difference) == pytest.approx(float((of_x * along).sum()), rel=5e-3, abs=1e-4)


def test_the_trial_notices_a_wrong_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    real = attention.launch

    def wrong(kernel: Any, grid: Any, *arguments: Any, **constants: Any) -> None:
        real(kernel, (*grid[:1], 1), *arguments, **constants)  # one head only

    monkeypatch.setattr(attention, "launch", wrong)
    with pytest.raises(ArithmeticError):
        choice._try(FusedPasses, torch.device(DEVICE), 48, 80, 2)
