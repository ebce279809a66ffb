"""The encoder against transformers' BertModel: hidden states, pooler and every parameter's gradient."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtbert.data.tokens import TokenStream, lay_out
from mtbert.model import bert
from mtbert.model.bert import BertConfig, BertEncoder, initialise
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.weights import from_hf

transformers = pytest.importorskip("transformers")

CONFIGS = [
    BertConfig(vocabulary=50, positions=24, layers=2, hidden=12, heads=3, intermediate=20),
    BertConfig(vocabulary=31, positions=40, layers=1, hidden=8, heads=1, intermediate=8, norm_eps=1e-5),
    BertConfig(vocabulary=30, positions=30, segments=3, layers=4, hidden=16, heads=2, intermediate=48),
]
# Lengths, and for a pair the length of its first part with both of its special tokens.
BATCHES = {
    "short and long": [(5, None), (2, None), (24, None), (5, None), (3, None)],
    "pairs": [(9, 4), (9, 7), (12, 3), (5, 3)],
    "mixed": [(9, 4), (9, None), (3, None), (12, 11), (3, None)],
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
    theirs = transformers.BertConfig(**BERT.written_config(config))
    torch.manual_seed(0)
    model = transformers.BertModel._from_config(theirs, attn_implementation="eager").eval()
    # Large weights, norms away from 1 and biases away from 0, so that any missing term shows.
    for parameter in model.parameters():
        parameter.data = parameter.data + spread * torch.randn_like(parameter)
    return model.to(dtype)


def our_names(model: "transformers.BertModel", config: BertConfig) -> dict[str, str]:
    """transformers' parameter names to ours, found by passing numbered tensors through `from_hf`."""
    theirs = list(dict(model.named_parameters()))
    numbered = {name: torch.full_like(model.get_parameter(name), place) for place, name in enumerate(theirs)}
    return {theirs[int(tensor.mean())]: name for name, tensor in from_hf(numbered, config, "numbers").items()}


def translated(model: "transformers.BertModel", config: BertConfig) -> BertEncoder:
    encoder = BertEncoder(config, dropout=0.1).eval()
    encoder.load_state_dict(from_hf(model.state_dict(), config, "test"))
    return encoder.to(next(model.parameters()).dtype)


def back_propagated(hidden: Tensor, pooled: Tensor, parameters: dict[str, nn.Parameter]) -> Outcome:
    """The gradients of a random sum of all outputs."""
    generator = torch.Generator().manual_seed(5)
    to_hidden, to_pooled = (torch.randn(out.shape, generator=generator).to(out.dtype) for out in (hidden, pooled))
    ((hidden * to_hidden).sum() + (pooled * to_pooled).sum()).backward()
    gradients = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
    return Outcome(hidden.detach(), pooled.detach(), gradients)


def theirs_of(model: "transformers.BertModel", config: BertConfig, batch: list[tuple[np.ndarray, int]]) -> Outcome:
    longest = max(len(ids) for ids, _ in batch)
    ids, mask, segments = (torch.zeros(len(batch), longest, dtype=torch.long) for _ in range(3))
    for row, (sequence, second) in enumerate(batch):
        ids[row, : len(sequence)] = torch.from_numpy(sequence)
        mask[row, : len(sequence)] = 1
        segments[row, second : len(sequence)] = 1
    out = model(input_ids=ids, attention_mask=mask, token_type_ids=segments)
    names = our_names(model, config)
    parameters = {names[name]: parameter for name, parameter in model.named_parameters()}
    return back_propagated(out.last_hidden_state * mask[:, :, None], out.pooler_output, parameters)


def ours_of(
    encoder: BertEncoder,
    batch: list[tuple[np.ndarray, int]],
    change: Callable[[TokenStream], TokenStream] = lambda stream: stream,
    multiple: int = 1,
) -> Outcome:
    true = lay_out(batch, multiple)
    states = encoder(change(true)).split(true.offsets.diff().tolist())[: len(batch)]
    padded = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)[true.rank]
    return back_propagated(padded, torch.tanh(encoder.pooler(padded[:, 0])), dict(encoder.named_parameters()))


def distance(ours: Outcome, theirs: Outcome) -> float:
    """The largest difference; for gradients above 1 it is relative."""
    assert ours.gradients.keys() == theirs.gradients.keys()
    worst = [(ours.hidden - theirs.hidden).abs().max(), (ours.pooled - theirs.pooled).abs().max()]
    for name, gradient in theirs.gradients.items():
        worst.append((ours.gradients[name] - gradient).abs().max() / gradient.abs().max().clamp_min(1))
    return float(torch.stack(worst).max())


# In fp64 there is no rounding to hide behind; in fp32, with weights of a usual size, both round differently.
@pytest.mark.parametrize(("dtype", "spread", "tolerance"), [(torch.float64, 0.3, 1e-11), (torch.float32, 0.1, 1e-5)])
@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_equals_transformers(
    config: BertConfig, kind: str, dtype: torch.dtype, spread: float, tolerance: float
) -> None:
    model, batch = reference(config, spread, dtype), sequences(config, kind)
    theirs = theirs_of(model, config, batch)
    for multiple in (1, 16):  # filler does nothing
        assert distance(ours_of(translated(model, config), batch, multiple=multiple), theirs) <= tolerance


def _late(stream: TokenStream) -> TokenStream:
    offsets = stream.offsets.clone()
    offsets[1] += 1
    return replace(stream, offsets=offsets)


def _exchange(attention: nn.Module) -> None:
    attention.query, attention.value = attention.value, attention.query


IN_THE_STREAM: dict[str, Callable[[TokenStream], TokenStream]] = {
    "a sequence starts late": _late,
    "no segments": lambda stream: replace(stream, segments=torch.zeros_like(stream.segments)),
    "segment starts one late": lambda stream: replace(stream, segments=stream.segments.roll(1)),
    "positions of the stream": lambda stream: replace(stream, positions=torch.arange(stream.tokens).clamp_max(23)),
    "positions start at one": lambda stream: replace(stream, positions=stream.positions + 1),
}
GELU = nn.functional.gelu
IN_THE_ENCODER: dict[str, Callable[..., object]] = {
    "tanh gelu": lambda _, patch: patch.setattr(bert.F, "gelu", lambda x: GELU(x, approximate="tanh")),
    "other heads": lambda encoder, _: [setattr(layer.attention, "heads", 1) for layer in encoder.layers],
    "query and value exchanged": lambda encoder, _: _exchange(encoder.layers[0].attention),
    "a norm's eps": lambda encoder, _: setattr(encoder.layers[0].attention_norm, "eps", 1e-3),
    "dropout in eval": lambda encoder, _: encoder.embeddings.dropout.train(),
}


@pytest.mark.parametrize("bug", [*IN_THE_STREAM, *IN_THE_ENCODER])
def test_the_comparison_notices_a_bug(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIGS[0]
    model = reference(config)
    batch = sequences(config, "mixed")[:2] + sequences(config, "pairs")[2:]
    theirs, encoder = theirs_of(model, config, batch), translated(model, config)
    if bug in IN_THE_ENCODER:
        IN_THE_ENCODER[bug](encoder, monkeypatch)
    with contextlib.suppress(RuntimeError):  # a wrong head count may also fail loudly
        assert distance(ours_of(encoder, batch, IN_THE_STREAM.get(bug, lambda stream: stream)), theirs) > 1e-4


def test_attention_dropout_acts_on_the_weights() -> None:
    """Values matter if attention weights are kept, and do not if all are dropped."""
    config, moved = CONFIGS[1], []
    stream = lay_out(sequences(config, "short and long"))
    for kept in (0.0, 1.0):
        encoder = translated(reference(config), config)
        attention = encoder.stack()[0].attention
        attention.dropout.forward = lambda weights, *_, kept=kept: kept * weights  # type: ignore[method-assign]
        before = encoder(stream).detach()
        attention.value.weight.data.zero_()
        attention.value.bias.data.zero_()
        moved.append(float((encoder(stream).detach() - before).abs().max()))
    assert moved[0] < 1e-5 < 0.1 < moved[1]


def test_filler_is_not_padded() -> None:
    """Long texts have several times as many filler sequences, of one token each, as real ones."""
    stream = lay_out(sequences(CONFIGS[1], "short and long"), multiple=512)
    assert bert.Padding.of(stream).rows.shape == (len(stream.rank), stream.longest)


@pytest.mark.parametrize("multiple", [1, 16], ids=["bare", "with filler"])
def test_first_only_gives_the_first_tokens_states(multiple: int) -> None:
    """With their gradients."""
    config, found = CONFIGS[0], []
    encoder = translated(reference(config, dtype=torch.float64), config)
    stream = lay_out(sequences(config, "short and long") + sequences(config, "mixed"), multiple)
    for first_only in (True, False):
        encoder.zero_grad()
        out = encoder(stream, first_only)
        out = out if first_only else out[stream.offsets[:-1]]
        found.append(back_propagated(out, out, dict(encoder.named_parameters())))
    assert distance(*found) <= 1e-11


def test_initialisation() -> None:
    torch.manual_seed(0)
    encoder = BertEncoder(BertConfig(vocabulary=200, layers=1, hidden=64, heads=2, intermediate=128)).apply(initialise)
    assert float(encoder.embeddings.token.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(encoder.stack()[0].feed_forward.up.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert encoder.pooler is not None and not encoder.pooler.bias.any()
    assert bool((encoder.embeddings.norm.weight == 1).all())
