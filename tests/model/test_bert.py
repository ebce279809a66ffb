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
from mtbert.model.attention import lay_out_groups
from mtbert.model.bert import BertConfig, BertEncoder, initialise
from mtbert.model.dropout import Dropout
from mtbert.model.weights import from_hf, random_weights

transformers = pytest.importorskip("transformers")

CONFIGS = [
    BertConfig(vocabulary=50, positions=24, layers=2, hidden=12, heads=3, intermediate=20),
    BertConfig(vocabulary=31, positions=40, layers=1, hidden=8, heads=1, intermediate=8, norm_eps=1e-5),
    BertConfig(vocabulary=97, positions=24, layers=3, hidden=32, heads=8, intermediate=64),
    BertConfig(vocabulary=30, positions=30, segments=3, layers=4, hidden=16, heads=2, intermediate=48),
]
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
        torch.nn.functional, "gelu", lambda x, gelu=torch.nn.functional.gelu: gelu(x, approximate="tanh")
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


@pytest.mark.parametrize("bug", PLANTED_IN_THE_STREAM)
def test_the_comparison_sees_a_wrong_stream(bug: str) -> None:
    config, model = CONFIGS[0], reference(CONFIGS[0])
    batch = sequences(config, "mixed")[:2] + sequences(config, "pairs")[2:]
    wrong = ours_of(translated(model, config), batch, PLANTED_IN_THE_STREAM[bug])
    assert distance(wrong, theirs_of(model, config, batch)) > 1e-3


@pytest.mark.parametrize("bug", PLANTED_IN_THE_ENCODER)
def test_the_comparison_sees_a_wrong_encoder(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, model = CONFIGS[0], reference(CONFIGS[0])
    batch = sequences(config, "pairs")
    theirs = theirs_of(model, config, batch)
    encoder = translated(model, config)
    PLANTED_IN_THE_ENCODER[bug](encoder, monkeypatch)
    with contextlib.suppress(RuntimeError):  # a wrong head count may also fail loudly
        assert distance(ours_of(encoder, batch), theirs) > 1e-4


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 5e-6)])
def test_a_sequence_does_not_see_its_neighbours(dtype: torch.dtype, tolerance: float) -> None:
    config = CONFIGS[2]
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


def test_attention_dropout_acts_on_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything else kept and all attention weights dropped, the values no longer matter; else they do."""
    config = CONFIGS[1]
    encoder = translated(reference(config), config).train()
    stream = lay_out(sequences(config, "ragged"))
    attention_only = 0.0
    weights = lay_out_groups(stream.blocks, stream.tokens, config.heads, torch.device("cpu")).weights

    def factors(self: Dropout, count: int, like: Tensor) -> Tensor | None:
        return torch.full((count,), attention_only) if count == weights else None

    monkeypatch.setattr(Dropout, "factors", factors)
    dropped = encoder(stream)
    encoder.layers[0].attention.value.weight.data.zero_()
    encoder.layers[0].attention.value.bias.data.zero_()
    torch.testing.assert_close(encoder(stream), dropped)


def test_bf16_products_stay_close_and_trainable() -> None:
    config = CONFIGS[2]
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
