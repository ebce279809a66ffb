"""The base of the layers that stand in for a linear one. Shapes: O outputs, I inputs. `nn.Linear.weight` is (O, I)."""

import torch
from torch import Tensor, nn


class AdaptedLinear(nn.Module):
    """A linear layer with weight W0 (O, I), frozen, to which a method adds parameters; it can be merged into a plain one.

    Args:
        base: the linear layer to adapt; its weight and bias are shared, not copied, and keep their names.

    Attributes:
        added: the names of the parameters that the method adds.
    """

    added: tuple[str, ...]

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(base.weight.detach(), requires_grad=False)
        self.bias = base.bias

    def merged_weight(self) -> Tensor:
        """W', (O, I)."""
        raise NotImplementedError

    def merged_bias(self) -> Tensor | None:
        """The bias that goes with W', (O,)."""
        return self.bias

    def merged(self) -> nn.Linear:
        """A plain linear layer with weight W', which computes the same without dropout."""
        outputs, inputs = self.weight.shape
        with torch.no_grad():
            like = {"device": self.weight.device, "dtype": self.weight.dtype}
            linear = nn.Linear(inputs, outputs, bias=self.bias is not None, **like)
            linear.weight.copy_(self.merged_weight())
            if (bias := self.merged_bias()) is not None:
                linear.bias.copy_(bias)
        return linear
