"""A trained model's card: README.md in its folder, a pure function of its config.json; exports add how they are used and metrics."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mtbert.peft.registry import ADAPTERS
from mtbert.pipeline.licences import data_terms, encoder_terms, metadata, parent_of

CARD = "README.md"
CLEANING = {"course": "in lower case, with the course's spacing of punctuation", "none": "as it is"}


def card(
    name: str,
    config: Mapping[str, Any],
    *,
    use: Sequence[str] | None = None,
    metrics: Mapping[str, Any] | None = None,
    library: str = "mtbert",
    pipeline: str = "text-classification",
    tasks: Sequence[str] | None = None,
) -> str:
    """What the model is, its tasks, what it was trained on, its parameters, how good it is and how to use it, as Markdown.

    Args:
        name: the run's.
        config: as config.json holds it.
        use: the lines that show how; by default those for mtbert.
        metrics: by dev and test, then by task, as results/RUN/metrics.json has them.
        library: the one that loads the folder.
        pipeline: what the Hugging Face hub calls its kind of task.
        tasks: those that the folder can do; by default all.
    """
    settings, training, encoder = config["settings"], config["training"], config["encoder"]
    adapter, parameters, base = settings["adapter"], config["parameters"], config["base"]
    how = f"with {training.get('adapter') or adapter['method']}" if adapter else "in full"
    per_task = adapter is not None and ADAPTERS[adapter["method"]].per_task
    limit, cleaning, parent = config["max_tokens"], CLEANING[config["preprocess"]], parent_of(config)
    known = {task: about for task, about in config["tasks"].items() if tasks is None or task in tasks}
    head = {"library_name": library, "pipeline_tag": pipeline, **metadata(config), "tags": ["mtbert"]}
    lines = [
        *("---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", ""),  # JSON is YAML
        f"# {name}",
        "",
        f"One BERT encoder ({base['name']}: {encoder['layers']} layers, {encoder['hidden']} wide, {settings['pooling']} pooling), "
        f"fine-tuned {how}, with a head for each task. Made by mtbert.",
        "",
        "| Task | Input | Output | Objective | Training examples |",
        "| --- | --- | --- | --- | ---: |",
        *(_row(task, about, config) for task, about in known.items()),
        "",
        f"It has {parameters['total']:,} parameters, of which {parameters['trainable']:,} were trained: {training['steps']:,} steps of "
        f"{training['batch_size']} examples (epochs: {training['epochs']}), sampler {training['sampler']}. Text is read {cleaning}, and cut "
        f"after {limit} tokens.",
        "",
        "## Use",
        "",
        *(use if use is not None else _mtbert_use(name, known, config["base_weights"], per_task)),
        "",
        *(_results(metrics, [*known, *(["overall"] if len(known) == len(config["tasks"]) else [])]) if metrics else []),
        "## Data and licences",
        "",
        "The encoder was trained on all tasks of the run:",
        "",
        *(
            f"- {task}: {size:,} examples: {data_terms(task, training.get('data'))}."
            for task, size in training["sizes"].items()
        ),
        *([f"- what the run {parent} was trained on, from whose weights this one started."] if parent else []),
        f"- encoder: {encoder_terms(base)}.",
        "",
        "mtbert's licence, MIT, is that of its code. It grants no rights to the data or the encoder, nor to weights made from them.",
        "",
        "## Limits",
        "",
        f"The paper's tasks are in English. Input of more than {limit} tokens loses its end. The model has the biases of its training data, and its "
        "probabilities are not calibrated: try it on text of your own before you rely on it.",
        "",
        "## Provenance",
        "",
        *(f"- {what}: {value}" for what, value in _provenance(config)),
    ]
    return "\n".join(lines) + "\n"


def _mtbert_use(name: str, tasks: Mapping[str, Any], base_weights: str | None, per_task: bool) -> list[str]:
    beside = (
        "This folder holds only what was trained: copy `models/pretrained`, its base, to where you copy this folder."
    )
    of_task = f', task="{next(iter(tasks))}"' if per_task else ""
    return [
        *([beside, ""] if base_weights else []),
        "```python",
        "import mtbert",
        "",
        f'model = mtbert.load("models/{name}")  # or wherever this folder is',
        *(_call(task, about) for task, about in tasks.items()),
        f'model.encode(["A cat sleeps."]{of_task})  # a vector for each sentence',
        "```",
        "",
        "On the command line: `mtbert predict FOLDER TASK TEXT ...`, or `--input FILE`.",
    ]


def _row(task: str, about: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    sentences = "a sentence" if len(about["texts"]) == 1 else "a pair of sentences"
    output = ", ".join(about["labels"]) if "labels" in about else f"a score, {about['low']:g} to {about['high']:g}"
    size = config["training"]["sizes"].get(task)
    return _cells(
        task, sentences, output, config["settings"]["heads"][task]["objective"], f"{size:,}" if size else "none"
    )


def _call(task: str, about: Mapping[str, Any]) -> str:
    example = '"A cat sleeps."' if len(about["texts"]) == 1 else '("A cat sleeps.", "A dog sleeps.")'
    return f'model.predict("{task}", [{example}])'


def _results(metrics: Mapping[str, Any], shown: Sequence[str]) -> list[str]:
    """A row for each part, task and metric, whatever metrics there are."""
    lines = ["## Results", "", "| Part | Task | Metric | Value |", "| --- | --- | --- | ---: |"]
    for part, found in metrics.items():
        for task in [task for task in shown if task in found]:
            entry = found[task] if isinstance(found[task], Mapping) else {"score": found[task]}
            lines += [_cells(part, task, metric, _value(value)) for metric, value in entry.items()]
    return [*lines, ""]


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(part)}" for key, part in value.items())
    if isinstance(value, list):
        return " to ".join(map(_value, value))
    return f"{value:.3f}" if isinstance(value, float) else "undefined" if value is None else str(value)


def _provenance(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    base = config["base"]
    origin = f"{base['name']}{' at ' + base['revision'] if 'revision' in base else ''}"
    return [
        ("encoder", f"{origin}, sha256 {base['sha256']}" if "sha256" in base else origin),
        *([("weights of the run", f"sha256 {config['sha256']}")] if "sha256" in config else []),
        ("tokenizer", f"sha256 {config['tokenizer']}"),
        (
            "the rest",
            "`record.json` in the run's folder has the checksums of the settings, code and data that it was made from",
        ),
    ]


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
