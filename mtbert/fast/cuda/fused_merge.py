"""`Merge` by Triton's kernels: one launch in the forward and two in the backward for all layers of one shape.

The forward reads W0 and writes W'; the backward reads G twice, and with DoRA W' too. So DoRA keeps W', which the products keep anyway, and
takes no more memory than LoRA except a few vectors.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from mtbert.fast.cuda import merge_kernels as kernels
from mtbert.fast.cuda.mask import launch
from mtbert.fast.cuda.merged import Merge, parts
from mtbert.peft.lora import LoraLinear

# 16 to 50 KB are loading at a time for each program, and two or more programs share a multiprocessor, which keeps memory busy.
OF_ROWS = {"ROWS": 32, "COLUMNS": 64, "STAGES": 3, "num_warps": 4}
OF_COLUMNS = {"ROWS": 64, "COLUMNS": 64, "STAGES": 3, "num_warps": 8}  # fewer programs, as they run through all rows
LARGEST_RANK = 32  # up to this rank a block's sums fit in registers, and its data in shared memory


class FusedMerge(Merge):
    """W' = f V with V = W0 + s B A, as by `Merge`."""

    @staticmethod
    def takes(layer: LoraLinear) -> bool:
        return layer.weight.dtype == torch.float32 and len(layer.lora_a) <= LARGEST_RANK

    @staticmethod
    def forward(
        ctx: Any,
        weights_NOI: Tensor,
        scale: float,
        exact: bool,
        dtype: torch.dtype,
        sizes: Sequence[int],
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        count, outputs, inputs = weights_NOI.shape
        a_NrI, b_NOr, *magnitudes = (torch.stack(list(part)) for part in parts(parameters, count))
        merged_NOI = torch.empty_like(weights_NOI, dtype=dtype)
        scaled_NOr, norm_NO = torch.empty_like(b_NOr), b_NOr.new_empty(count, outputs) if magnitudes else None
        m_NO = magnitudes[0] if magnitudes else None
        rank = a_NrI.shape[1]
        ctx.sizes = {"OUT": outputs, "IN": inputs, "RANK": rank, "RANKS": max(16, triton.next_power_of_2(rank))}
        launch(
            kernels.merge, (count * -(-outputs // OF_ROWS["ROWS"]),),
            weights_NOI, a_NrI, b_NOr, m_NO, scale, merged_NOI, scaled_NOr, norm_NO, DORA=bool(magnitudes), **ctx.sizes, **OF_ROWS,
        )  # fmt: skip
        of_dora = (merged_NOI, m_NO, norm_NO) if magnitudes else ()
        ctx.save_for_backward(a_NrI, scaled_NOr, *of_dora)
        ctx.scale, ctx.exact = scale, exact
        return tuple(unit.flatten(0, 1) for unit in merged_NOI.split(list(sizes)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        a_NrI, scaled_NOr, *of_dora = ctx.saved_tensors
        merged_NOI, m_NO, norm_NO = of_dora or (None, None, None)
        sizes = ctx.sizes
        outputs, inputs = sizes["OUT"], sizes["IN"]
        # The kernels take the layers' gradients as separate tensors: joining them would take as long as a kernel.
        g_OI = tuple(layer for unit in gradients for layer in unit.contiguous().view(-1, outputs, inputs))
        of_a, of_b = torch.empty_like(a_NrI), torch.empty_like(scaled_NOr)
        of_m = None if m_NO is None else torch.empty_like(m_NO)
        along_NO = None if m_NO is None or not ctx.exact else torch.empty_like(m_NO)
        launch(
            kernels.merge_backward_rows, (len(g_OI) * -(-outputs // OF_ROWS["ROWS"]),),
            g_OI, merged_NOI, a_NrI, m_NO, norm_NO, ctx.scale, of_b, of_m, along_NO,
            DORA=bool(of_dora), EXACT=ctx.exact, **sizes, **OF_ROWS,
        )  # fmt: skip
        launch(
            kernels.merge_backward_columns, (len(g_OI) * -(-inputs // OF_COLUMNS["COLUMNS"]),),
            g_OI, merged_NOI, scaled_NOr, along_NO, of_a, EXACT=ctx.exact, **sizes, **OF_COLUMNS,
        )  # fmt: skip
        return None, None, None, None, None, *of_a.unbind(), *of_b.unbind(), *(() if of_m is None else of_m.unbind())
