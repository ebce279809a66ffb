"""The adapters that a run may name as `adapter.method`. A new one is a file like lora.py, an entry here, and its settings."""

from mtbert.peft.dora import DoraLinear
from mtbert.peft.lora import LoraLinear

# Each class takes (linear, rank, alpha, dropout, **its own settings) and says which parameters it adds (`added`).
METHODS: dict[str, type[LoraLinear]] = {"lora": LoraLinear, "dora": DoraLinear}
