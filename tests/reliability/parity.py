"""Figure 14: states and gradients equal those of transformers, DoRA's those of peft, and pooling, features and losses those of torch."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbert.data.tokens import lay_out
from mtbert.engines import engine_for, kernels
from mtbert.fast.cpu import passes
from mtbert.fast.cpu.products import Products
from mtbert.model.bert import BertConfig, BertEncoder, FeedForward
from mtbert.model.multitask import MultitaskModel
from mtbert.model.pooling import POOLINGS, mean
from mtbert.peft.dora import DoraLinear
from mtbert.pretrained.bert import BERT, NAMES
from mtbert.pretrained.weights import from_hf
from mtbert.tasks import losses
from mtbert.tasks.features import FEATURES
from mtbert.training.compute import Compute
from mtbert.training.engine import Engine, Plain
from tests.reliability.trial import Tally
from tests.tiny import NARROW, multitask

LIMIT = 1e-5


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """Random weights and inputs; differences are relative for values above 1."""
    tally = Tally(14, "parity with other libraries", "≤ 1e-5", seed)
    largest = 0.0
    for n in range(2 if quick else 20):
        for what, difference in _differences(seed + n):
            largest = max(largest, difference)
            tally.trial(difference <= LIMIT, f"{what}: {difference:.2g}")
    for bug, change in PLANTED:
        with change:
            tally.control(any(difference > LIMIT for _, difference in _differences(seed)), bug)
    engines = "plain torch and the fast engine" if kernels()[0] else f"plain torch only ({kernels()[1]})"
    note = f"{engines}; pooling against the masked formulas of sentence-transformers"
    tally.note = f"largest difference {largest:.1g}; {note}"
    return [tally]


def _differences(seed: int) -> Iterator[tuple[str, float]]:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    for what, difference in _encoder(rng, NARROW, engine_for):
        yield f"{what}, fast", difference
    yield from _encoder(rng, replace(NARROW, heads=2), Plain)
    yield from _adapter(lambda layer, x: layer(x))
    if kernels()[0]:
        for what, difference in _adapter(_fast):
            yield f"{what}, fast", difference
    yield from _features()
    yield from _losses()


def _encoder(
    rng: np.random.Generator, size: BertConfig, kind: Callable[[MultitaskModel, Compute], Engine]
) -> Iterator[tuple[str, float]]:
    import transformers

    config = BERT.written_config(size) | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    theirs = transformers.BertModel(transformers.BertConfig(**config))
    for parameter in theirs.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    ours = BertEncoder(size, 0.0)
    ours.load_state_dict(from_hf(theirs.state_dict(), size, "transformers"))
    theirs.double()  # so that all rounding errors are ours
    engine = kind(multitask(ours, "cls", None, None), Compute(torch.device("cpu"), bf16=False))

    lengths = rng.integers(2, 20, 6)
    sentences = [rng.integers(3, size.vocabulary, length) for length in lengths]
    second = [int(rng.integers(1, length + 1)) for length in lengths]
    width = int(lengths.max())
    ids, mask, kinds = (torch.zeros(6, width, dtype=torch.long) for _ in range(3))
    for n, sentence in enumerate(sentences):
        ids[n, : len(sentence)] = torch.from_numpy(sentence)
        mask[n, : len(sentence)] = 1
        kinds[n, second[n] : len(sentence)] = 1
    stream = lay_out(list(zip(sentences, second, strict=True)), 8)
    hidden = engine.encode(stream)
    out = theirs(input_ids=ids, attention_mask=mask, token_type_ids=kinds)
    states, real = out.last_hidden_state, mask.bool()[..., None]
    pooled = {
        "cls": states[:, 0],
        "mean": (states * real).sum(1) / real.sum(1),
        "max": states.masked_fill(~real, -torch.inf).amax(1),
    }
    weights = torch.randn(3, 6, size.hidden)
    total, their_total = torch.zeros(()), torch.zeros(())
    for (name, pool), weight in zip(POOLINGS.items(), weights, strict=True):
        mine = pool(hidden, stream.offsets)[stream.rank]
        yield f"{name} pooling against transformers", _apart(mine, pooled[name])
        total, their_total = total + (mine * weight).sum(), their_total + (pooled[name] * weight).sum()
    total.backward()
    their_total.backward()
    theirs_by_name = dict(theirs.named_parameters())
    for their_name, our_name in NAMES.items():
        gradient = theirs_by_name[their_name].grad
        if gradient is not None:
            yield f"gradient of {our_name}", _apart(ours.get_parameter(our_name).grad, gradient)
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    total_norm = torch.cat([g.flatten() for g in gradients.values()]).norm()
    our_norm = torch.cat([p.grad.flatten() for p in ours.parameters() if p.grad is not None]).norm()
    yield "norm of all gradients", float((our_norm / total_norm - 1).abs())


def _fast(layer: DoraLinear, x: Tensor) -> Tensor:
    z, factor, bias = Products()((layer,), x)
    assert factor is not None and bias is not None
    return factor * z + bias


def _adapter(apply: Callable[[DoraLinear, Tensor], Tensor]) -> Iterator[tuple[str, float]]:
    from peft import LoraConfig, get_peft_model

    base = nn.Sequential(nn.Linear(32, 16))
    ours = DoraLinear(nn.Linear(32, 16), rank=3, alpha=6.0, exact_norm=False)  # in peft the norm is a constant
    their_config = LoraConfig(r=3, lora_alpha=6, use_dora=True, target_modules=["0"], lora_dropout=0.0)
    wrapped: Any = get_peft_model(base, their_config)
    theirs = wrapped.base_model.model[0]
    with torch.no_grad():
        ours.weight.copy_(theirs.base_layer.weight)
        ours.bias.copy_(theirs.base_layer.bias)
        ours.lora_a.copy_(theirs.lora_A["default"].weight)
        ours.lora_b.normal_()
        theirs.lora_B["default"].weight.copy_(ours.lora_b)
        ours.magnitude.copy_(theirs.lora_magnitude_vector["default"].weight * 1.1)
        theirs.lora_magnitude_vector["default"].weight.copy_(ours.magnitude)
    x = torch.randn(9, 32)
    mine, his = apply(ours, x), theirs(x)
    yield "DoRA against peft", _apart(mine, his)
    target = torch.randn_like(mine)
    F.mse_loss(mine, target).backward()
    F.mse_loss(his, target).backward()
    yield "gradient of A", _apart(ours.lora_a.grad, theirs.lora_A["default"].weight.grad)
    yield "gradient of B", _apart(ours.lora_b.grad, theirs.lora_B["default"].weight.grad)
    yield "gradient of the magnitude", _apart(ours.magnitude.grad, theirs.lora_magnitude_vector["default"].weight.grad)


def _features() -> Iterator[tuple[str, float]]:
    u, v, c = torch.randn(3, 5, 8)
    names = ["u", "v", "|u-v|", "|u+v|", "c"]
    expected = torch.cat([u, v, torch.abs(u - v), torch.abs(u + v), c], 1)
    yield "features", _apart(torch.cat([FEATURES[name]({"u": u, "v": v, "c": c}) for name in names], 1), expected)


def _losses() -> Iterator[tuple[str, float]]:
    logits, classes = torch.randn(16, 5), torch.randint(0, 5, (16,))
    yield "cross-entropy", _apart(losses.cross_entropy(logits, classes.float()), nn.CrossEntropyLoss()(logits, classes))
    logit, duplicate = torch.randn(16), torch.randint(0, 2, (16,)).float()
    yield (
        "binary cross-entropy",
        _apart(losses.binary_cross_entropy(logit, duplicate), nn.BCEWithLogitsLoss()(logit, duplicate)),
    )
    score, similarity = torch.randn(16), 5 * torch.rand(16)
    yield "mean squared error", _apart(losses.mean_squared_error(score, similarity), nn.MSELoss()(score, similarity))
    u, v = torch.randn(2, 16, 8)
    y = torch.where(similarity >= 2.5, 1, -1)
    mine = losses.cosine_embedding(F.cosine_similarity(u, v), similarity, 0.1, 2.5)
    yield "cosine embedding", _apart(mine, nn.CosineEmbeddingLoss(margin=0.1)(u, v, y))


def _apart(mine: Tensor | None, theirs: Tensor | None) -> float:
    assert mine is not None and theirs is not None
    return float(((mine - theirs).abs() / theirs.abs().clamp_min(1)).max().detach())


def _without_bias(name: str, like: Tensor, *arguments: Any) -> None:
    given = list(arguments)
    if name == "residual_norm":
        given[3] = None
    CALL(name, like, *given)


CALL = passes.call
PLANTED: list[tuple[str, Any]] = [
    (
        "the approximate GELU",
        patch.object(FeedForward, "forward", lambda self, x: self.down(F.gelu(self.up(x), approximate="tanh"))),
    ),
    (
        "a mean that counts one token more",
        patch.dict(POOLINGS, {"mean": lambda x, offsets: mean(x, torch.cat((offsets[:-1], offsets[-1:] + 1)))}),
    ),
    *([("a kernel called without its bias", patch.object(passes, "call", _without_bias))] if kernels()[0] else []),
    ("DoRA's norm left out", patch.object(DoraLinear, "norm", lambda self: torch.ones_like(self.magnitude))),
    ("a difference with its sign", patch.dict(FEATURES, {"|u-v|": lambda pooled: pooled["u"] - pooled["v"]})),
    (
        "the margin forgotten",
        patch.object(losses, "cosine_embedding", lambda c, y, _margin, t: (1 - c).where(y >= t, c.clamp_min(0)).mean()),
    ),
]
