"""A run's adapter in peft's format: what was trained of the encoder, to be loaded onto the encoder that it started from."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtbert.errors import MtbertError
from mtbert.export.card import write_card
from mtbert.export.registry import Export
from mtbert.export.tokenizer import write_tokenizer
from mtbert.export.transformers import write_tensors
from mtbert.files import atomic_json
from mtbert.peft.published import ADAPTER_CONFIG, ADAPTER_WEIGHTS, BIAS, PARTS, PREFIX, published_module
from mtbert.peft.registry import LowRank, Pissa
from mtbert.pretrained.source import hub_name
from mtbert.pretrained.store import WEIGHTS, read_safetensors
from mtbert.tasks.ordinal import Corn

HEADS = "heads.safetensors"  # which peft does not read


def write(export: Export, folder: Path) -> list[str]:
    """Write adapter_config.json, adapter_model.safetensors, the heads and a tokenizer.

    Raises:
        MtbertError: the run has no adapter, or peft could not find the weights that it adapts.
    """
    adapter, base = _adapter(export), export.config["base"]
    tensors = read_safetensors(export.model.folder / WEIGHTS)  # `load` has verified them
    if isinstance(adapter, Pissa):
        tensors = _doubled(tensors)
    adapted = {name.rpartition(".")[0] for name in tensors if name.rpartition(".")[2] in PARTS}
    theirs, heads, saved = {}, {}, set()
    for name, tensor in tensors.items():
        if name.startswith(("heads.", "pair_layer.")):
            heads[name.removeprefix("heads.").replace(".linear.", ".")] = tensor
            continue
        layer, _, part = name.rpartition(".")
        module = published_module(layer.removeprefix("encoder."))
        if part in PARTS:
            theirs[f"{PREFIX}{module}.{PARTS[part]}"] = tensor
        elif adapter.train_rest and layer not in adapted:
            theirs[f"{PREFIX}{module}.{part}"] = tensor
            saved.add(module.rpartition(".")[2])
        elif adapter.train_rest and part == "bias":
            theirs[f"{PREFIX}{module}.{BIAS}"] = tensor
    write_tensors(folder / ADAPTER_WEIGHTS, theirs)
    write_tensors(folder / HEADS, heads)
    modules = sorted(published_module(layer.removeprefix("encoder.")) for layer in adapted)
    atomic_json(folder / ADAPTER_CONFIG, _config(adapter, base, modules, sorted(saved)))
    write_tokenizer(export.model, False, export.model.max_tokens, folder)
    write_card(export, folder, "peft", _use(export, adapter), list(export.model.tasks), "feature-extraction")
    rest = ", embeddings, norms and biases" if adapter.train_rest else ""
    return [f"the adapter, {adapter.title}{rest}, for {_name(base)}; the heads are in {HEADS}"]


def _adapter(export: Export) -> LowRank | Pissa:
    """The run's adapter, if it is one that peft can load."""
    adapter, folder, base = export.model.settings.adapter, export.model.folder, export.config["base"]
    merged = "use --to transformers, which writes the merged model"
    if export.task is not None:
        raise MtbertError("--task: the adapter belongs to the encoder, which all tasks share; leave --task out")
    if adapter is None:
        raise MtbertError(f"{folder}: was fine-tuned in full and has no adapter; use --to transformers")
    if not isinstance(adapter, LowRank | Pissa):
        raise MtbertError(f"{folder}: mtbert does not write {adapter.title} in peft's format; {merged}")
    if adapter.start_from != "pretrained":
        what = f"its adapter starts from the weights of the run {adapter.start_from}, not from a published encoder"
        raise MtbertError(f"{folder}: {what}; {merged}")
    if "seed" in base or "base" in base:
        what = "an encoder with random weights" if "seed" in base else "an encoder with a merged adapter"
        raise MtbertError(f"{folder}: its adapter starts from {what}, which no folder or hub holds; {merged}")
    return adapter


def _doubled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """PiSSA's update of W0, B A - B0 A0, as LoRA's of twice the rank."""
    found = {name: tensor for name, tensor in tensors.items() if ".principal_" not in name}
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        if part == "lora_a":
            found[name] = torch.cat([tensor, tensors[f"{layer}.principal_a"]])
        elif part == "lora_b":
            found[name] = torch.cat([tensor, -tensors[f"{layer}.principal_b"]], dim=1)
    return found


def _name(base: dict[str, Any]) -> str:
    return hub_name(base) or str(base["name"])


def _config(adapter: LowRank | Pissa, base: dict[str, Any], modules: list[str], saved: list[str]) -> dict[str, Any]:
    if isinstance(adapter, Pissa):
        size: dict[str, Any] = {"r": 2 * adapter.rank, "lora_alpha": 2 * adapter.rank, "lora_dropout": 0.0}
    else:
        size = {"r": adapter.rank, "lora_alpha": adapter.alpha, "lora_dropout": adapter.dropout}
    return {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": _name(base),
        "revision": base.get("revision"),
        **size,
        "use_dora": adapter.method == "dora",
        "use_rslora": adapter.method == "rslora",
        "target_modules": modules,
        "modules_to_save": saved or None,
        "bias": "lora_only" if saved else "none",
        "inference_mode": True,
    }


def _use(export: Export, adapter: LowRank | Pissa) -> list[str]:
    base, settings = export.config["base"], export.model.settings
    revision = f', revision="{base["revision"]}"' if "revision" in base else ""
    where = "downloaded, or a folder" if hub_name(base) else "the folder of the encoder"
    pooled = {
        "cls": "output.pooler_output",
        "mean": "(output.last_hidden_state * mask).sum(1) / mask.sum(1)",
        "max": "output.last_hidden_state.masked_fill(mask == 0, -torch.inf).amax(1)",
    }
    heads = [f"{task}: {', '.join(head.inputs)}" for task, head in settings.heads.items() if head.head == "linear"]
    more = ""
    if settings.pair_layer is not None:
        more += " For pairs, `pair_layer` and tanh come first, and their heads take its output."
    if ordinal := [task for task, head in settings.heads.items() if isinstance(head, Corn)]:
        more += f" The logits of {', '.join(ordinal)} are those of P(y > k | y >= k)."
    trains = " It holds the embeddings, norms and biases too, which were trained." if adapter.train_rest else ""
    return [
        "```python",
        "import torch",
        "from peft import PeftModel",
        "from transformers import AutoModel, AutoTokenizer",
        "",
        f'base = AutoModel.from_pretrained("{_name(base)}"{revision})  # {where}',
        'model = PeftModel.from_pretrained(base, ".").eval()  # this folder',
        'tokenizer = AutoTokenizer.from_pretrained(".")',
        'inputs = tokenizer(["A cat sleeps."], padding=True, truncation=True, return_tensors="pt")',
        "with torch.no_grad():",
        "    output = model(**inputs)",
        'mask = inputs["attention_mask"][:, :, None]',
        f"print({pooled[settings.pooling]})  # u",
        "```",
        "",
        f"The base's weights have the sha256 {base.get('sha256', 'unknown')}; on others the adapter computes something else.{trains}",
        "",
        f"`{HEADS}` has the weights of the tasks' heads, which peft does not load: linear layers over the concatenated features "
        f"({'; '.join(heads)}), where u and v are the pooled sentences of a pair, and c is the pair pooled as one sequence.{more}",
    ]
