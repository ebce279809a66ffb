"""The encoder as a `SentenceTransformer`, or a task that reads the pair as one sequence as a `CrossEncoder`."""

from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError
from mtbert.export.card import write_card
from mtbert.export.registry import Export
from mtbert.export.tokenizer import write_tokenizer
from mtbert.export.transformers import encoder_config, limits, remarks, trust, write_classifier, write_tensors
from mtbert.files import atomic_json
from mtbert.inference.model import TaskInfo, TrainedModel
from mtbert.pretrained.store import CONFIG, WEIGHTS
from mtbert.pretrained.weights import POOLER, to_hf

# What a CrossEncoder applies to its logits, by kind of label: two labels have one logit there.
ACTIVATIONS = {
    "binary": "torch.nn.modules.activation.Sigmoid",
    "score": "torch.nn.modules.linear.Identity",
    "classes": "torch.nn.modules.linear.Identity",
}


def write(export: Export, folder: Path) -> list[str]:
    """Write a SentenceTransformer; for a chosen task, a CrossEncoder.

    Raises:
        MtbertError: the format cannot hold the encoder or the task.
    """
    if export.task is None:
        adapter = export.model.settings.adapter
        if adapter is not None and adapter.per_task:
            what = f"its adapter, {adapter.title}, has parts for each task, and a SentenceTransformer holds one encoder for all"
            raise MtbertError(
                f"{export.model.folder}: {what}; name a --task, or use --to transformers, which writes each task"
            )
        _write_bi_encoder(export.model, folder)
        tasks = list(export.model.tasks)
        write_card(export, folder, "sentence-transformers", _bi_use(), tasks, "sentence-similarity")
        return ["SentenceTransformer, whose encode gives mtbert's pooled vectors"]
    model, info = export.model, export.model.tasks[export.task]
    inputs = list(model.settings.heads[info.name].inputs)
    if inputs != ["c"]:
        what = f"{info.name} reads {', '.join(inputs)}, and a CrossEncoder reads the pair as one sequence (c)"
        raise MtbertError(
            f"--task {info.name}: {what}; use --to transformers, or leave --task out for a SentenceTransformer"
        )
    activation = {"sentence_transformers": {"activation_fn": ACTIVATIONS[info.kind]}}
    write_classifier(model, info.name, folder, one_logit=True, **activation)
    write_card(export, folder, "sentence-transformers", _cross_use(model, info), [info.name])
    return [f"{info.name}: CrossEncoder{trust(model, info.name)}"]


def _write_bi_encoder(model: TrainedModel, folder: Path) -> None:
    hidden, pooling = model.network.encoder.config.hidden, model.settings.pooling
    ours = model.network.encoder.state_dict()
    pooler = {name.removeprefix("pooler."): ours.pop(name) for name in sorted(POOLER & ours.keys())}
    write_tensors(folder / WEIGHTS, to_hf(ours))
    atomic_json(folder / CONFIG, {**encoder_config(model), "architectures": ["BertModel"]})
    write_tokenizer(model, False, model.max_tokens, folder)
    # The pooler, which cls pooling has, is a layer of its own here, so BertModel has none.
    no_pooler = {"model_args": {"add_pooling_layer": False}}
    atomic_json(
        folder / "sentence_bert_config.json", {"max_seq_length": model.max_tokens, "do_lower_case": False, **no_pooler}
    )
    modes = {f"pooling_mode_{name}": name.startswith(pooling) for name in ("cls_token", "mean_tokens", "max_tokens")}
    modules: dict[str, dict[str, Any]] = {"Pooling": {"word_embedding_dimension": hidden, **modes}}
    if pooler:
        tanh = "torch.nn.modules.activation.Tanh"
        modules["Dense"] = {"in_features": hidden, "out_features": hidden, "bias": True, "activation_function": tanh}
    listed = [_module(0, "Transformer", "")]
    for number, (kind, config) in enumerate(modules.items(), 1):
        listed.append(_module(number, kind, f"{number}_{kind}"))
        (folder / f"{number}_{kind}").mkdir()
        atomic_json(folder / f"{number}_{kind}" / CONFIG, config)
    if pooler:
        write_tensors(folder / "2_Dense" / WEIGHTS, {f"linear.{part}": tensor for part, tensor in pooler.items()})
    atomic_json(folder / "modules.json", listed)
    atomic_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})


def _module(number: int, kind: str, path: str) -> dict[str, Any]:
    return {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}


def _bi_use() -> list[str]:
    return [
        "```python",
        "from sentence_transformers import SentenceTransformer",
        "",
        'model = SentenceTransformer(".")  # this folder',
        'vectors = model.encode(["A cat sleeps.", "A dog sleeps."])',
        "print(model.similarity(vectors, vectors))",
        "```",
        "",
        "The heads of the tasks are not in it: `--task` exports one that reads the pair as one sequence, as a CrossEncoder.",
    ]


def _cross_use(model: TrainedModel, info: TaskInfo) -> list[str]:
    gives = {
        "binary": f"the probability of {''.join(info.labels[-1:])}",
        "score": "the score",
        "classes": f"a logit for each of {', '.join(info.labels)}; with apply_softmax=True, probabilities",
    }[info.kind]
    ends = limits(model, info.name)
    return [
        "```python",
        "from sentence_transformers import CrossEncoder",
        "",
        f'model = CrossEncoder("."{trust(model, info.name)})  # this folder',
        'scores = model.predict([("A cat sleeps.", "A dog sleeps.")])',
        f"print(scores{f'.clip({ends})' if ends else ''})  # {gives}",
        "```",
        *remarks(model, info.name),
    ]
