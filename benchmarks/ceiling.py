"""This machine's matrix-product rate at the shapes of a training step, and a step's share of it."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from mtbert.model.bert import BertConfig


def products(config: BertConfig) -> list[tuple[int, int, int]]:
    """(inputs, outputs, how many) of the encoder's linear layers."""
    return [
        (config.hidden, config.hidden, 4 * config.layers),
        (config.hidden, config.intermediate, config.layers),
        (config.intermediate, config.hidden, config.layers),
    ]


def flops_per_token(config: BertConfig, last: float = 1.0) -> float:
    """FLOPs per token of a training step's linear layers, without attention: forward, and two products of the same size backward.

    Args:
        last: the share of tokens that pass the last layer after its attention; with cls pooling only [CLS] does.
    """
    whole = sum(inputs * outputs * count for inputs, outputs, count in products(config))
    after_attention = config.hidden * config.hidden + 2 * config.hidden * config.intermediate
    return 6.0 * (whole - (1 - last) * after_attention)


def rate(config: BertConfig, tokens: int, dtype: torch.dtype, device: str = "cpu") -> float:
    """FLOP/s of the three products of each layer shape over `tokens` rows, weighted as in a step."""
    total = spent = 0.0
    for inputs, outputs, count in products(config):
        x = torch.randn(tokens, inputs, device=device).to(dtype)
        w = torch.randn(outputs, inputs, device=device).to(dtype)
        g = torch.randn(tokens, outputs, device=device).to(dtype)
        for product in (lambda x=x, w=w: x @ w.T, lambda g=g, w=w: g @ w, lambda g=g, x=x: g.T @ x):
            spent += count * _best(product, device)
            total += count * 2.0 * tokens * inputs * outputs
    return total / spent


def _best(product: Callable[[], Tensor], device: str) -> float:
    """Seconds of a product, the least of those measured in a ninth of half a second."""
    best, end = float("inf"), time.perf_counter() + 0.5 / 9
    product()
    while time.perf_counter() < end:
        began = time.perf_counter()
        product()
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best
