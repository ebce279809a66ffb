"""A task of an mtbert model, for transformers: one file, which needs torch and transformers alone.

`mtbert export` copies it beside weights whose pooling or features BERT's own classes lack. Its input is what the tokenizer beside it
gives for a sentence or a pair, [CLS] s1 [SEP] (s2 [SEP]), padded on the right. From it the model takes the sequences that its head's features need:

    u = [CLS] s1 [SEP]        v = [CLS] s2 [SEP]        c = [CLS] s1 [SEP] s2 [SEP]

Each is cut to `config.max_tokens`, of a pair the longer sentence first, then encoded and pooled by itself. The head is a linear layer over
the concatenated features, with a layer of `config.pair_layer` units and tanh before it if that is not 0, or cos(u, v). Of two labels, the
first has logit 0; a score is the logit, on the scale of the training labels. A `corn` head's logits are those of P(y > k | y >= k); here
they become log P(y = k) of each class.

Shapes: B examples, L tokens, N sequences, D hidden.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

FEATURES = {
    "u": lambda pooled: pooled["u"],
    "v": lambda pooled: pooled["v"],
    "|u-v|": lambda pooled: (pooled["u"] - pooled["v"]).abs(),
    "|u+v|": lambda pooled: (pooled["u"] + pooled["v"]).abs(),
    "c": lambda pooled: pooled["c"],
}


class MtbertConfig(BertConfig):
    """BERT's config.json, and: pooling (cls, mean or max), features, head (linear, corn or cosine), max_tokens, low and high (of a score),
    pair_layer (its size, or 0)."""

    model_type = "mtbert"


class MtbertForSequenceClassification(BertPreTrainedModel):
    """The encoder and the head of one task."""

    config_class = MtbertConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=config.pooling == "cls")
        if config.head != "cosine":
            width = config.hidden_size * len(config.features)
            if config.pair_layer:
                self.pair_layer = nn.Linear(width, config.pair_layer)
            self.classifier = nn.Linear(config.pair_layer or width, config.num_labels - (config.head == "corn"))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """(B, L) to logits (B, labels), or (B, 1) for a score."""
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        second = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids * real
        n2 = (second.sum(1, keepdim=True) - 1).clamp_min(0)  # wordpieces of s2, (B, 1)
        n1 = (real - second).sum(1, keepdim=True) - 2  # and of s1
        names = sorted(set("".join(self.config.features)) & {"u", "v", "c"})
        sequences = [getattr(self, f"_{name}")(input_ids, n1, n2) for name in names]
        vectors = self._pooled(*map(torch.cat, zip(*sequences, strict=True)))
        pooled = dict(zip(names, vectors.reshape(len(names), input_ids.shape[0], -1), strict=True))
        if self.config.head != "cosine":
            inputs = torch.cat([FEATURES[name](pooled) for name in self.config.features], dim=-1)
            if self.config.pair_layer:
                inputs = torch.tanh(self.pair_layer(inputs))
            logits = self.classifier(inputs)
            if self.config.head == "corn":
                higher, end = nn.functional.logsigmoid(logits).cumsum(1), torch.zeros_like(logits[:, :1])
                logits = torch.cat([end, higher], 1) + torch.cat([nn.functional.logsigmoid(-logits), end], 1)
        else:
            cosine = nn.functional.cosine_similarity(pooled["u"], pooled["v"])[:, None]
            if self.config.num_labels == 2:
                logits = torch.cat([torch.zeros_like(cosine), cosine], dim=-1)
            else:
                logits = self.config.low + (self.config.high - self.config.low) / 2 * (1 + cosine)
        return SequenceClassifierOutput(logits=logits)

    # Each of the next three gives, of a sequence cut to k1 or k2 wordpieces a sentence: its ids (B, at most max_tokens), which of them
    # are real, and their segments. Places after a cut are read further right, so that the closing [SEP] follows at once.
    def _u(self, ids: Tensor, n1: Tensor, n2: Tensor) -> tuple[Tensor, ...]:
        k1 = n1.clamp_max(self.config.max_tokens - 2)
        place = self._places(ids)
        taken = _taken(ids, place + (n1 - k1) * (place > k1))
        return taken, place < k1 + 2, torch.zeros_like(taken)

    def _v(self, ids: Tensor, n1: Tensor, n2: Tensor) -> tuple[Tensor, ...]:
        k2 = n2.clamp_max(self.config.max_tokens - 2)
        place = self._places(ids)
        taken = _taken(ids, place + (n1 + 1) * (place > 0) + (n2 - k2) * (place > k2))
        return taken, place < k2 + 2, torch.zeros_like(taken)

    def _c(self, ids: Tensor, n1: Tensor, n2: Tensor) -> tuple[Tensor, ...]:
        room = self.config.max_tokens - 3
        k1 = torch.minimum(n1, (room - n2).clamp_min(room - room // 2))
        k2 = torch.minimum(n2, (room - n1).clamp_min(room // 2))
        place = self._places(ids)
        taken = _taken(ids, place + (n1 - k1) * (place > k1) + (n2 - k2) * (place > k1 + 1 + k2))
        return taken, place < k1 + k2 + 3, (place > k1 + 1).long()

    def _places(self, ids: Tensor) -> Tensor:
        """0, 1, ... for the tokens of a sequence that is cut, at most (L,)."""
        return torch.arange(ids.shape[1], device=ids.device)[: self.config.max_tokens]

    def _pooled(self, ids: Tensor, real: Tensor, segments: Tensor) -> Tensor:
        """One vector for each sequence, (N, D)."""
        encoded = self.bert(input_ids=ids, attention_mask=real.long(), token_type_ids=segments)
        if self.config.pooling == "cls":
            return encoded.pooler_output
        hidden, real = encoded.last_hidden_state, real[:, :, None]
        if self.config.pooling == "max":
            return hidden.masked_fill(~real, -torch.inf).amax(1)
        return (hidden * real).sum(1) / real.sum(1)


def _taken(ids: Tensor, places: Tensor) -> Tensor:
    """The ids at these places of each sequence; places past its end are masked, so any id will do there."""
    return ids.gather(1, places.clamp_max(ids.shape[1] - 1))
