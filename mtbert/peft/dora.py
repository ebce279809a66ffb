"""DoRA: weight-decomposed low-rank adaptation (equation 2; Liu et al. 2024).

Shapes: O outputs, I inputs, r rank, T rows of input. `nn.Linear.weight` is (O, I), and the norm is taken per output
feature, i.e. over I.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.model.dropout import Dropout, Noise
from mtbert.model.fused import Product, finished
from mtbert.peft.norm import row_norm
from mtbert.peft.product import AdapterProduct, Frozen


class DoraLinear(nn.Module):
    """W' = m (W0 + s B A) / ||W0 + s B A||, y = W' x + bias.

    W0 (O, I) is frozen. m (O,) is the magnitude, A (r, I) and B (O, r) the low-rank direction update, s = alpha / r.
    At the start B = 0 and m = ||W0||, so that W' = W0.

    Args:
        base: the linear layer to adapt; its weight and bias tensors are taken over, not copied.
        rank: r.
        alpha: numerator of s.
        dropout: on the input of the update; the base term then keeps its factor (m / ||.|| - 1), as in the authors' code.
        exact_norm: let the gradient pass through the norm; otherwise the norm counts as a constant (their section 4.3).
    """

    def __init__(
        self, base: nn.Linear, rank: int, alpha: float, dropout: Dropout | None = None, exact_norm: bool = True
    ) -> None:
        super().__init__()
        outputs, inputs = base.weight.shape
        self.weight = nn.Parameter(base.weight.detach(), requires_grad=False)
        self.bias = base.bias
        self.magnitude = nn.Parameter(base.weight.detach().norm(dim=1))
        self.lora_a = nn.Parameter(torch.empty(rank, inputs))
        self.lora_b = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=5**0.5)
        self.scale = alpha / rank
        self.dropout = dropout or Dropout(0.0, Noise())
        self.exact_norm = exact_norm
        # Made once, since W0 is frozen, and again only after other weights are loaded: ||w_i||^2 (O,), and `wide_weight`'s.
        self._base_squared: Tensor | None = None
        self._base_wide: Tensor | None = None
        self.register_load_state_dict_post_hook(_forget_base)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        return finished(self.side_by_side([self], x.reshape(-1, x.shape[-1]))).view(*x.shape[:-1], -1)

    @staticmethod
    def side_by_side(layers: Sequence["DoraLinear"], x: Tensor) -> Product:
        """What several layers of one shape make of x, (T, I), next to each other; without dropout as one product."""
        first = layers[0]
        if first.training and first.dropout.p > 0:
            return Product(torch.cat([layer._dropped(x) for layer in layers], dim=-1))
        bias = None if first.bias is None else torch.cat([layer.bias for layer in layers])
        frozen = Frozen(
            wide_weight(layers, product_dtype(x, first.weight)),
            tuple(layer._squared_rows() for layer in layers),
            first.scale,
            first.exact_norm,
        )
        parameters = [getattr(layer, name) for name in ("lora_a", "lora_b", "magnitude") for layer in layers]
        with torch.autocast(x.device.type, enabled=False):
            z, factor = AdapterProduct.apply(x, frozen, *parameters)
        return Product(z, factor, bias)

    def _dropped(self, x: Tensor) -> Tensor:
        factor_O = self.magnitude / self.norm()
        dropped, base = self.dropout(x), F.linear(x, self.weight)
        update = F.linear(F.linear(dropped, self.lora_a), self.lora_b)
        y = base + (factor_O - 1) * F.linear(dropped, self.weight) + factor_O * self.scale * update
        return (y if self.bias is None else y + self.bias).to(base.dtype)

    def norm(self) -> Tensor:
        """||W0 + s B A|| per output feature, (O,), without forming B A."""
        with torch.autocast(self.weight.device.type, enabled=False):
            lora_a: Tensor = self.lora_a
            scaled_b = self.scale * self.lora_b
            if not self.exact_norm:
                lora_a, scaled_b = lora_a.detach(), scaled_b.detach()
            cross_Or = self.weight @ lora_a.T
            return row_norm(self._squared_rows(), scaled_b, cross_Or, cross_Or + scaled_b @ (lora_a @ lora_a.T))

    def merged(self) -> nn.Linear:
        """A plain linear layer that computes the same as this one."""
        outputs, inputs = self.weight.shape
        with torch.no_grad():
            linear = nn.Linear(inputs, outputs, bias=self.bias is not None, device=self.weight.device)
            adapted = self.weight + self.scale * self.lora_b @ self.lora_a
            linear.weight.copy_((self.magnitude / self.norm())[:, None] * adapted)
            if self.bias is not None:
                linear.bias.copy_(self.bias)
        return linear

    def _squared_rows(self) -> Tensor:
        kept = self._base_squared
        if kept is None or (kept.dtype, kept.device) != (self.weight.dtype, self.weight.device):
            with torch.inference_mode(False), torch.no_grad():  # an inference tensor could not enter autograd later
                kept = self._base_squared = self.weight.detach().square().sum(1)
        return kept


def wide_weight(layers: Sequence[DoraLinear], dtype: torch.dtype) -> Tensor:
    """[W0 | 0], (O, I + R), of layers as one, in `dtype`, with room for s B; W0 is cast once."""
    first = layers[0]
    outputs, ranks = (sum(layer.lora_b.shape[axis] for layer in layers) for axis in (0, 1))
    inputs, device = first.weight.shape[1], first.weight.device
    wide = first._base_wide
    if (
        wide is None
        or (wide.shape, wide.dtype, wide.device) != ((outputs, inputs + ranks), dtype, device)
        or any(layer._base_wide is not wide for layer in layers)  # one of them was given other weights since
    ):
        with torch.inference_mode(False), torch.no_grad():  # an inference tensor could not enter autograd later
            wide = torch.zeros(outputs, inputs + ranks, dtype=dtype, device=device)
            wide[:, :inputs] = torch.cat([layer.weight for layer in layers])
        for layer in layers:
            layer._base_wide = wide
    return wide


def product_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """What autocast makes of their product."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def _forget_base(layer: nn.Module, _keys: object) -> None:
    layer._base_squared = layer._base_wide = None  # type: ignore[assignment]
