"""The encoder's forward with the plain modules' parameters: the same mathematics as mtbert/model/bert.py, in fused passes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mtbert.data.tokens import TokenStream
from mtbert.fast.cpu.attention import HEAD_WIDTHS, Packed, PackedAttention
from mtbert.fast.cpu.call import mask
from mtbert.fast.cpu.embedding import TableGradient
from mtbert.fast.cpu.passes import Product, States, gelu, residual_norm
from mtbert.fast.cpu.products import Products
from mtbert.model.bert import BertEncoder, Embeddings, FeedForward, Layer, SelfAttention
from mtbert.peft.pal import PalLayer


def encode(
    encoder: BertEncoder, stream: TokenStream, first_only: bool, products: Products, table: TableGradient
) -> Tensor:
    """Last hidden states, as from `BertEncoder.forward`."""
    x = States.first(_embed(encoder.embeddings, stream, table))
    packed = Packed.of(stream, encoder.config.heads)
    rows = stream.offsets[:-1] if first_only else None
    *layers, last = encoder.stack()
    for layer in layers:
        x = _layer(layer, x, packed, products)
    return _layer(last, x, packed, products, rows).wide


def _embed(embeddings: Embeddings, stream: TokenStream, table: TableGradient) -> Tensor:
    token_TD = table.lookup(stream.ids)
    x_TD = embeddings.norm(token_TD + embeddings.segment(stream.segments) + embeddings.position(stream.positions))
    words, threshold, scale = mask(embeddings.dropout, x_TD.numel(), len(x_TD))
    if words is None:
        return x_TD
    keep = torch.ge(words[: x_TD.numel()], threshold, out=torch.empty(x_TD.numel())).mul_(scale)
    return x_TD * keep.view(x_TD.shape)


def _layer(layer: Layer, x: States, packed: Packed, products: Products, rows: Tensor | None = None) -> States:
    attended = _attend(layer.attention, x, packed, products, rows)
    h = residual_norm(x if rows is None else x.of(rows), attended, layer.attention_norm, layer.dropout)
    summand = h.plus(_task_specific(layer, x, packed, products, rows)) if isinstance(layer, PalLayer) else h
    return residual_norm(summand, _feed(layer.feed_forward, h, products), layer.feed_forward_norm, layer.dropout)


def _attend(attention: SelfAttention, x: States, packed: Packed, products: Products, rows: Tensor | None) -> Product:
    qkv = products((attention.query, attention.key, attention.value), x.narrow)
    weights_mask = mask(attention.dropout, packed.weights)
    mixed_TD = PackedAttention.apply(*qkv, packed, attention.heads, weights_mask)
    return products((attention.output,), mixed_TD if rows is None else mixed_TD.index_select(0, rows))


def _task_specific(layer: PalLayer, x: States, packed: Packed, products: Products, rows: Tensor | None) -> Tensor:
    """TS(x) of a PAL. Its heads are padded with zeros to a width that the kernel takes, which changes no score."""
    projection, attention = layer.parts()
    small_TS = products((projection.encode,), x.narrow).z
    z_TE, _, bias = products((attention.query, attention.key, attention.value), small_TS)
    assert bias is not None
    q_THK, k_THK, v_THK = (z_TE.float() + bias).unflatten(1, (3, attention.heads, -1)).unbind(1)
    width = q_THK.shape[-1]
    filled = next(one for one in HEAD_WIDTHS if one >= width)
    q_THK = q_THK * (filled / width) ** 0.5  # the kernel divides the scores by the root of the filled width
    wide_TE = F.pad(torch.cat((q_THK, k_THK, v_THK), 1), (0, filled - width)).flatten(1)
    mixed_TE = PackedAttention.apply(
        wide_TE, None, None, packed, attention.heads, mask(attention.dropout, packed.weights)
    )
    mixed_TS = mixed_TE.unflatten(1, (attention.heads, filled))[..., :width].flatten(1).to(small_TS.dtype)
    return products((projection.decode,), mixed_TS if rows is None else mixed_TS.index_select(0, rows)).z


def _feed(feed_forward: FeedForward, x: States, products: Products) -> Product:
    return products((feed_forward.down,), gelu(products((feed_forward.up,), x.narrow)))
