"""A trained model's card: README.md in its folder, a pure function of its config.json."""

from collections.abc import Mapping
from typing import Any

CARD = "README.md"
CLEANING = {"course": "in lower case, with the course's spacing of punctuation", "none": "as it is"}


def card(name: str, config: Mapping[str, Any]) -> str:
    """What the model is, its tasks, what it was trained on, its parameters and how to use it, as Markdown.

    Args:
        name: the run's.
        config: as config.json holds it.
    """
    settings, training, encoder = config["settings"], config["training"], config["encoder"]
    adapter, parameters = settings["adapter"], config["parameters"]
    how = f"with {adapter['method']} of rank {adapter['rank']}" if adapter else "in full"
    limit, cleaning = config["max_tokens"], CLEANING[config["preprocess"]]
    lines = [
        f"# {name}",
        "",
        f"One BERT encoder ({config['base']['name']}: {encoder['layers']} layers, {encoder['hidden']} wide, {settings['pooling']} pooling), "
        f"fine-tuned {how}, with a head for each task. Made by mtbert.",
        "",
        "| Task | Input | Output | Objective | Training examples |",
        "| --- | --- | --- | --- | ---: |",
        *(_row(task, about, config) for task, about in config["tasks"].items()),
        "",
        f"It has {parameters['total']:,} parameters, of which {parameters['trainable']:,} were trained: {training['steps']:,} steps of "
        f"{training['batch_size']} examples (epochs: {training['epochs']}), sampler {training['sampler']}. Text is read {cleaning}, and cut "
        f"after {limit} tokens. `record.json` has the checksums of the settings, code, data and weights that it was made from.",
        "",
        "## Use",
        "",
        "```python",
        "import mtbert",
        "",
        f'model = mtbert.load("models/{name}")  # or wherever this folder is',
        *(_call(task, about) for task, about in config["tasks"].items()),
        'model.encode(["A cat sleeps."])  # a vector for each sentence',
        "```",
        "",
        "On the command line: `mtbert predict FOLDER TASK TEXT ...`, or `--input FILE`.",
    ]
    return "\n".join(lines) + "\n"


def _row(task: str, about: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    sentences = "a sentence" if len(about["texts"]) == 1 else "a pair of sentences"
    output = ", ".join(about["labels"]) if "labels" in about else f"a score, {about['low']:g} to {about['high']:g}"
    size = config["training"]["sizes"].get(task)
    cells = (task, sentences, output, config["settings"]["heads"][task]["objective"], f"{size:,}" if size else "none")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _call(task: str, about: Mapping[str, Any]) -> str:
    example = '"A cat sleeps."' if len(about["texts"]) == 1 else '("A cat sleeps.", "A dog sleeps.")'
    return f'model.predict("{task}", [{example}])'
