"""BERT, as transformers' BertModel publishes it; all-MiniLM-L6-v2 is one."""

import re

from mtbert.model.bert import BertConfig
from mtbert.pretrained.family import Family, SizeKey

NAMES = {
    "embeddings.word_embeddings.weight": "embeddings.token.weight",
    "embeddings.position_embeddings.weight": "embeddings.position.weight",
    "embeddings.token_type_embeddings.weight": "embeddings.segment.weight",
    "embeddings.LayerNorm.weight": "embeddings.norm.weight",
    "embeddings.LayerNorm.bias": "embeddings.norm.bias",
    "pooler.dense.weight": "pooler.weight",
    "pooler.dense.bias": "pooler.bias",
}
LAYER_NAMES = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "feed_forward.up",
    "output.dense": "feed_forward.down",
    "output.LayerNorm": "feed_forward_norm",
}

BERT = Family(
    name="BERT",
    model_type="bert",
    sizes={
        "vocabulary": SizeKey("vocab_size", 1),
        "positions": SizeKey("max_position_embeddings", 1),
        "segments": SizeKey("type_vocab_size", 2),  # the two sentences of a pair
        "layers": SizeKey("num_hidden_layers", 1),
        "hidden": SizeKey("hidden_size", 1),
        "heads": SizeKey("num_attention_heads", 1),
        "intermediate": SizeKey("intermediate_size", 1),
    },
    defaults={"model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": BertConfig().norm_eps},
    supported={"hidden_act": "gelu", "position_embedding_type": "absolute"},
    prefix="bert.",
    spellings={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    names=NAMES,
    layer=re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)"),
    layer_names=LAYER_NAMES,
    buffers=frozenset({"embeddings.position_ids"}),
    masked_head={
        "cls.predictions.transform.dense.weight": "dense.weight",
        "cls.predictions.transform.dense.bias": "dense.bias",
        "cls.predictions.transform.LayerNorm.weight": "norm.weight",
        "cls.predictions.transform.LayerNorm.bias": "norm.bias",
        "cls.predictions.bias": "bias",
    },
    heads=re.compile(r"(cls|classifier|qa_outputs)\..+"),
    special_tokens=("[CLS]", "[SEP]"),
)
