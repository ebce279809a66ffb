"""The encoder against transformers' BertModel: hidden states, pooler and every parameter's gradient."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from mtbert.data.tokens import Block, lay_out
from mtbert.kernels import build
from mtbert.model import bert, fused
from mtbert.model.attention import lay_out_groups, lay_out_packed
from mtbert.model.bert import BertConfig, BertEncoder, initialise
from mtbert.model.dropout import Dropout, Mask
from mtbert.pretrained.weights import from_hf, random_weights

transformers = pytest.importorskip("transformers")

CONFIGS = [
    BertConfig(vocabulary=50, positions=24, layers=2, hidden=12, heads=3, intermediate=20),
    BertConfig(vocabulary=31, positions=40, layers=1, hidden=8, heads=1, intermediate=8, norm_eps=1e-5),
    BertConfig(vocabulary=97, positions=24, layers=3, hidden=32, heads=8, intermediate=64),
    BertConfig(vocabulary=30, positions=30, segments=3, layers=4, hidden=16, heads=2, intermediate=48),
    # Those that our kernels take, in fp32.
    BertConfig(vocabulary=40, positions=24, layers=2, hidden=32, heads=2, intermediate=64),
    BertConfig(vocabulary=50, positions=24, layers=1, hidden=64, heads=4, intermediate=48, norm_eps=1e-5),
    BertConfig(vocabulary=31, positions=40, layers=2, hidden=64, heads=2, intermediate=16),
    BertConfig(vocabulary=31, positions=40, layers=2, hidden=128, heads=2, intermediate=32),
]
FITTING = CONFIGS[4:]
# Lengths, and for a pair the length of its first part with both of its special tokens.
BATCHES = {
    "ragged": [(5, None), (2, None), (17, None), (5, None), (3, None)],
    "pairs": [(9, 4), (9, 7), (12, 3), (5, 3)],
    "mixed": [(9, 4), (9, None), (3, None), (12, 11), (3, None)],
    "equal": [(6, None)] * 4,
    "one token": [(1, None), (4, 2), (1, None)],
    "alone": [(7, None)],
}


class Outcome(NamedTuple):
    """Padded hidden states (N, L, D) with zeros outside, pooled (N, D), and gradients under our names."""

    hidden: Tensor
    pooled: Tensor
    gradients: dict[str, Tensor]


def sequences(config: BertConfig, kind: str) -> list[tuple[np.ndarray, int]]:
    rng = np.random.default_rng(len(kind))
    return [(rng.integers(1, config.vocabulary, length), second or length) for length, second in BATCHES[kind]]


def reference(config: BertConfig, spread: float = 0.3, dtype: torch.dtype = torch.float32) -> "transformers.BertModel":
    theirs = transformers.BertConfig(
        vocab_size=config.vocabulary,
        max_position_embeddings=config.positions,
        type_vocab_size=config.segments,
        num_hidden_layers=config.layers,
        hidden_size=config.hidden,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate,
        layer_norm_eps=config.norm_eps,
    )
    torch.manual_seed(0)
    model = transformers.BertModel._from_config(theirs, attn_implementation="eager").eval()
    # Large weights, norms away from 1 and biases away from 0, so that nothing can be left out unnoticed.
    for parameter in model.parameters():
        parameter.data = parameter.data + spread * torch.randn_like(parameter)
    return model.to(dtype)


def our_names(model: "transformers.BertModel", config: BertConfig) -> dict[str, str]:
    """Their parameters' names to ours, found by sending numbered tensors through `from_hf`."""
    theirs = list(dict(model.named_parameters()))
    numbered = {name: torch.full_like(model.get_parameter(name), place) for place, name in enumerate(theirs)}
    return {theirs[int(tensor.mean())]: name for name, tensor in from_hf(numbered, config, "numbers").items()}


def cotangents(like: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of the outputs before they are summed: for hidden states like `like`, and for pooled ones."""
    generator = torch.Generator().manual_seed(5)
    count, _, hidden = like.shape
    return (
        torch.randn(like.shape, generator=generator).to(like.dtype),
        torch.randn(count, hidden, generator=generator).to(like.dtype),
    )


def theirs_of(model: "transformers.BertModel", config: BertConfig, batch: list[tuple[np.ndarray, int]]) -> Outcome:
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask, segments = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, (sequence, second) in enumerate(batch):
        ids[row, : len(sequence)] = torch.from_numpy(sequence)
        mask[row, : len(sequence)] = 1
        segments[row, second : len(sequence)] = 1
    out = model(input_ids=ids, attention_mask=mask, token_type_ids=segments)
    hidden = out.last_hidden_state * mask[:, :, None]
    to_hidden, to_pooled = cotangents(hidden)
    ((hidden * to_hidden).sum() + (out.pooler_output * to_pooled).sum()).backward()
    names = our_names(model, config)
    gradients = {names[name]: parameter.grad for name, parameter in model.named_parameters()}
    return Outcome(hidden.detach(), out.pooler_output.detach(), gradients)  # type: ignore[arg-type]


def ours_of(
    encoder: BertEncoder,
    batch: list[tuple[np.ndarray, int]],
    change: Callable[..., object] = lambda stream: stream,
    multiple: int = 1,
) -> Outcome:
    true = lay_out(batch, multiple)
    hidden_TD = encoder(change(true))
    lengths = [block.length for block in true.blocks for _ in range(block.count)]
    padded = torch.nn.utils.rnn.pad_sequence(hidden_TD.split(lengths), batch_first=True)[true.rank]
    pooled = torch.tanh(encoder.pooler(padded[:, 0]))
    to_hidden, to_pooled = cotangents(padded)
    ((padded * to_hidden).sum() + (pooled * to_pooled).sum()).backward()
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    return Outcome(padded.detach(), pooled.detach(), gradients)  # type: ignore[arg-type]


def translated(model: "transformers.BertModel", config: BertConfig) -> BertEncoder:
    encoder = BertEncoder(config, dropout=0.1).eval()
    encoder.load_state_dict(from_hf(model.state_dict(), config, "test"))
    return encoder.to(next(model.parameters()).dtype)


def distance(ours: Outcome, theirs: Outcome) -> float:
    """Largest difference; of gradients, which are sums, relative to their own size where that is above 1."""
    assert ours.gradients.keys() == theirs.gradients.keys()
    worst = [(ours.hidden - theirs.hidden).abs().max(), (ours.pooled - theirs.pooled).abs().max()]
    for name, gradient in theirs.gradients.items():
        worst.append((ours.gradients[name] - gradient).abs().max() / gradient.abs().max().clamp_min(1))
    return float(torch.stack(worst).max())


# In fp64 there is no rounding to hide behind; in fp32, with weights of a usual size, both round differently.
@pytest.mark.parametrize(("dtype", "spread", "tolerance"), [(torch.float64, 0.3, 1e-11), (torch.float32, 0.1, 1e-5)])
@pytest.mark.parametrize("multiple", [1, 16], ids=["bare", "with filler"])
@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_equals_transformers(
    config: BertConfig, kind: str, multiple: int, dtype: torch.dtype, spread: float, tolerance: float
) -> None:
    model = reference(config, spread, dtype)
    batch = sequences(config, kind)
    ours = ours_of(translated(model, config), batch, multiple=multiple)
    assert distance(ours, theirs_of(model, config, batch)) <= tolerance


PLANTED_IN_THE_STREAM = {
    "blocks in another order": lambda stream: replace(stream, blocks=stream.blocks[::-1]),
    "a block too short": lambda stream: replace(stream, blocks=(Block(1, 1), *_shortened(stream.blocks))),
    "no segments": lambda stream: replace(stream, segments=torch.zeros_like(stream.segments)),
    "segment starts one late": lambda stream: replace(stream, segments=stream.segments.roll(1)),
    "positions of the stream": lambda stream: replace(stream, positions=torch.arange(stream.tokens).clamp_max(23)),
    "positions start at one": lambda stream: replace(stream, positions=stream.positions + 1),
}
PLANTED_IN_THE_ENCODER = {
    "tanh gelu": lambda encoder, monkeypatch: monkeypatch.setattr(
        bert, "gelu", lambda y, _fused: torch.nn.functional.gelu(fused.finished(y), approximate="tanh")
    ),
    "other heads": lambda encoder, monkeypatch: [setattr(layer.attention, "heads", 1) for layer in encoder.layers],
    "query and value exchanged": lambda encoder, monkeypatch: _exchange(encoder.layers[0].attention),
    "a norm's eps": lambda encoder, monkeypatch: setattr(encoder.layers[0].attention_norm, "eps", 1e-3),
    "dropout in eval": lambda encoder, monkeypatch: encoder.embeddings.dropout.train(),
}


def _shortened(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    return (Block(blocks[0].count, blocks[0].length - 1), *blocks[1:])


def _exchange(attention: torch.nn.Module) -> None:
    attention.query, attention.value = attention.value, attention.query


BOTH = pytest.mark.parametrize("config", [CONFIGS[0], FITTING[0]], ids=["torch", "kernels"])


@BOTH
@pytest.mark.parametrize("bug", PLANTED_IN_THE_STREAM)
def test_the_comparison_sees_a_wrong_stream(bug: str, config: BertConfig) -> None:
    model = reference(config)
    batch = sequences(config, "mixed")[:2] + sequences(config, "pairs")[2:]
    wrong = ours_of(translated(model, config), batch, PLANTED_IN_THE_STREAM[bug])
    assert distance(wrong, theirs_of(model, config, batch)) > 1e-3


@BOTH
@pytest.mark.parametrize("bug", PLANTED_IN_THE_ENCODER)
def test_the_comparison_sees_a_wrong_encoder(bug: str, config: BertConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    model = reference(config)
    batch = sequences(config, "pairs")
    theirs = theirs_of(model, config, batch)
    encoder = translated(model, config)
    PLANTED_IN_THE_ENCODER[bug](encoder, monkeypatch)
    with contextlib.suppress(RuntimeError):  # a wrong head count may also fail loudly
        assert distance(ours_of(encoder, batch), theirs) > 1e-4


@pytest.mark.parametrize("config", [CONFIGS[2], FITTING[1]], ids=["torch", "kernels"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 5e-6)])
def test_a_sequence_does_not_see_its_neighbours(config: BertConfig, dtype: torch.dtype, tolerance: float) -> None:
    encoder = translated(reference(config), config).to(dtype)
    batch = sequences(config, "mixed") + sequences(config, "ragged")

    def hidden(chosen: list[int]) -> list[Tensor]:
        stream = lay_out([batch[place] for place in chosen])
        lengths = [block.length for block in stream.blocks for _ in range(block.count)]
        with torch.no_grad():
            states = encoder(stream).split(lengths)
        return [states[place] for place in stream.rank.tolist()]

    together = hidden(list(range(len(batch))))
    shuffled = np.random.default_rng(0).permutation(len(batch)).tolist()
    for place, state in zip(shuffled, hidden(shuffled), strict=True):
        torch.testing.assert_close(state, together[place], atol=tolerance, rtol=0)
    for place in range(len(batch)):
        torch.testing.assert_close(hidden([place])[0], together[place], atol=tolerance, rtol=0)


@pytest.mark.parametrize("config", [CONFIGS[1], FITTING[0]], ids=["torch", "kernels"])
def test_attention_dropout_acts_on_the_weights(config: BertConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything else kept and all attention weights dropped, the values no longer matter; else they do."""
    encoder = translated(reference(config), config).train()
    stream = lay_out(sequences(config, "ragged"))
    grouped = lay_out_groups(stream.blocks, stream.tokens, config.heads, torch.device("cpu")).weights
    packed, drawn = lay_out_packed(stream.blocks, config.heads).weights, Dropout.mask

    def factors(self: Dropout, count: int, like: Tensor) -> Tensor | None:
        return torch.full((count,), 0.0) if count == grouped else None

    def mask(self: Dropout, count: int) -> Mask | None:
        words = drawn(self, count)
        return words._replace(threshold=1 << 15) if count == packed and words is not None else None

    monkeypatch.setattr(Dropout, "factors", factors)
    monkeypatch.setattr(Dropout, "mask", mask)
    values = [encoder.layers[0].attention.value.weight, encoder.layers[0].attention.value.bias]
    outcomes = []
    for drops in (True, False):
        encoder.load_state_dict(from_hf(reference(config).state_dict(), config, "test"))
        encoder.train(drops)
        if not drops:
            monkeypatch.undo()
        before = encoder(stream).detach()
        for value in values:
            value.data.zero_()
        outcomes.append(float((encoder(stream).detach() - before).abs().max()))
    assert outcomes[0] < 1e-5 < 0.1 < outcomes[1]


# ---- with our kernels and without

needs_kernels = pytest.mark.skipif(not build.available(), reason="needs g++")


def test_only_what_fits_goes_by_our_kernels() -> None:
    for config in CONFIGS:
        x = torch.zeros(1, config.hidden)
        size = config.hidden, config.heads, config.intermediate
        assert fused.fits(x, *size) == (build.available() and config in FITTING)
        assert not fused.fits(x.double(), *size)
        assert not fused.fits(x.to("meta"), *size)
        with torch.autocast("cpu", dtype=torch.float16):
            assert not fused.fits(x, *size)
    assert not fused.fits(torch.zeros(1, 32), 32, 2, 72)


def both_ways(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[], dict[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """With our kernels, and without; each called as often as it says."""
    calls: list[str] = []
    call = fused.call
    monkeypatch.setattr(fused, "call", lambda name, *rest: (calls.append(name), call(name, *rest))[1])
    ours = run()
    assert calls, "the kernels took part"
    calls.clear()
    monkeypatch.setattr(build, "available", lambda: False)
    theirs = run()
    assert not calls
    return ours, theirs


def states_and_gradients(encoder: BertEncoder, bf16: bool, first_only: bool = False) -> dict[str, Tensor]:
    encoder.zero_grad()
    config = encoder.config
    stream = lay_out(sequences(config, "ragged") + sequences(config, "pairs"), 16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        out = encoder(stream, first_only)
    out = out[: len(stream.rank) if first_only else stream.tokens]  # filler's states mean nothing
    to_scalar = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * to_scalar).sum().backward()
    found = {name: weight.grad.clone() for name, weight in encoder.named_parameters() if weight.grad is not None}
    return {"states": out.detach(), **found}


@needs_kernels
@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-5), (True, 0.05)], ids=["fp32", "bf16"])
@pytest.mark.parametrize("config", FITTING, ids=range(len(FITTING)))
def test_with_our_kernels_as_without(
    config: BertConfig, bf16: bool, tolerance: float, first_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = translated(reference(config, 0.1), config)
    ours, theirs = both_ways(monkeypatch, lambda: states_and_gradients(encoder, bf16, first_only))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert ours[name].dtype == expected.dtype
        apart = (ours[name] - expected).norm() / expected.norm().clamp_min(1) if bf16 else None
        if apart is None:
            apart = (ours[name] - expected).abs().max() / expected.abs().max().clamp_min(1)
        assert float(apart) <= tolerance, name


@needs_kernels
def test_the_same_masks_drop_the_same_elements_outside_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention weights lie in another order there, so that its dropout is another; without it all masks are the same."""
    config = FITTING[0]
    encoder = translated(reference(config, 0.1), config).train()
    for layer in encoder.layers:
        layer.attention.dropout.p = 0.0

    def run() -> dict[str, Tensor]:
        encoder.noise.reseed(3, 4)
        return states_and_gradients(encoder, False)

    ours, theirs = both_ways(monkeypatch, run)
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, atol=1e-5 * max(1, float(expected.abs().max())), rtol=0)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("multiple", [1, 16], ids=["bare", "with filler"])
@pytest.mark.parametrize("config", [CONFIGS[0], FITTING[0], FITTING[2]], ids=["torch", "kernels", "kernels, wide"])
def test_first_tokens_only_are_the_first_rows_of_all(config: BertConfig, multiple: int, bf16: bool) -> None:
    """With their gradients."""
    encoder = translated(reference(config, 0.1), config)
    stream = lay_out(sequences(config, "ragged") + sequences(config, "mixed"), multiple)
    starts, found = stream.starts(), []
    to_scalar = torch.randn(len(starts), config.hidden, generator=torch.Generator().manual_seed(2))
    for first_only in (True, False):
        encoder.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            out = encoder(stream, first_only)
        out = out if first_only else out[starts]
        (out * to_scalar).sum().backward()
        gradients = {name: weight.grad for name, weight in encoder.named_parameters() if weight.grad is not None}
        found.append({"states": out.detach(), **gradients})
    assert found[0].keys() == found[1].keys()
    for name, expected in found[1].items():
        apart = (found[0][name] - expected).norm() / expected.norm().clamp_min(1)
        assert float(apart) <= (0.02 if bf16 else 1e-5), name


@pytest.mark.parametrize("config", [CONFIGS[2], FITTING[0]], ids=["torch", "kernels"])
def test_bf16_products_stay_close_and_trainable(config: BertConfig) -> None:
    encoder = translated(reference(config), config)
    encoder.load_state_dict(random_weights(config, 0))
    stream = lay_out(sequences(config, "mixed"))
    exact = encoder(stream)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = encoder(stream)
    assert float((rough.float() - exact).detach().abs().max()) < 0.1
    rough.float().square().sum().backward()
    for name, parameter in encoder.named_parameters():
        if not name.startswith("pooler"):
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.dtype == torch.float32


def test_initialisation() -> None:
    torch.manual_seed(0)
    encoder = BertEncoder(BertConfig(vocabulary=200, layers=1, hidden=64, heads=2, intermediate=128)).apply(initialise)
    assert float(encoder.embeddings.token.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(encoder.layers[0].feed_forward.up.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not encoder.pooler.bias.any()
    assert bool((encoder.embeddings.norm.weight == 1).all())


def test_default_sizes_are_bert_base() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in BertEncoder(BertConfig()).parameters()) == 109_482_240
