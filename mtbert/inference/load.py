"""From a model's folder to a model that predicts, without params.yaml or a plan.

A run with an adapter keeps only what it trained; its encoder is then read from the folder `pretrained` beside the model's.
"""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from mtbert.corpus.tokenizer import read_tokenizer
from mtbert.data.tokens import Wrapper
from mtbert.engines import engine_for
from mtbert.errors import MtbertError, nearest
from mtbert.files import sha256_file
from mtbert.inference.model import TaskInfo, TrainedModel
from mtbert.peft.convert import merge
from mtbert.pipeline.models import assemble
from mtbert.pipeline.paths import MODELS
from mtbert.pipeline.trained import trained_runs
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.store import CONFIG, TOKENIZER, load_model
from mtbert.settings.run import Run
from mtbert.training.compute import Compute, resolve

AGAIN = "copy the model's folder again, whole; where it was trained, run `dvc repro --force --single-item train@RUN`"
DEVICES, PRECISIONS = ("auto", "cpu", "cuda"), ("auto", "fp32", "bf16")


def load(model: str | Path, *, device: str = "auto", precision: str = "auto") -> TrainedModel:
    """Load a trained model. Adapters that can be merged are merged into the layers that they adapt.

    Args:
        model: a model's folder, or a run's name for models/RUN.
        device: auto, cpu or cuda; auto is a GPU where there is one.
        precision: of matrix products: auto, fp32 or bf16; auto is bf16 where the device has it.

    Raises:
        MtbertError: there is no such model, its folder is incomplete or damaged, its encoder is not beside it, or the device is not there.
    """
    compute = _compute(device, precision)
    folder = find(model)
    _check_ours(folder / CONFIG)
    tensors, config = load_model(folder, AGAIN)
    settings, tasks = _settings(folder, config)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers are left as they are
        loaded = assemble(settings, folder, tensors, config)
    merge(loaded)
    tokenizer = _tokenizer(folder, config["tokenizer"])
    cls, sep = map(tokenizer.token_to_id, BERT.special_tokens)
    engine = engine_for(loaded.eval().requires_grad_(False).to(compute.device), compute, quiet=True)
    wrapper = Wrapper(cls, sep, config["max_tokens"])
    return TrainedModel(folder, engine, settings, tasks, tokenizer, wrapper, config["preprocess"])


def find(model: str | Path) -> Path:
    """The folder of a model that is named by its folder or its run.

    Raises:
        MtbertError: there is none.
    """
    for folder in (Path(model), MODELS / model):
        if (folder / CONFIG).is_file():
            return folder
    if Path(model).is_dir() or Path(model).name != str(model):
        raise MtbertError(
            f"{model}: not a model: it has no {CONFIG}; name the folder of a trained run, such as models/best_performance"
        )
    runs = trained_runs()
    where = f"there is no folder {model}, and no {MODELS}/{model}"
    raise MtbertError(f"{where}{nearest(str(model), runs)}" if runs else f"{where}; name a model's folder")


def _check_ours(path: Path) -> None:
    """Refuse another library's config.json, such as `mtbert export` writes."""
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return  # `load_model` reports it
    if isinstance(config, dict) and not config.keys() & {"sha256", "seal"}:
        raise MtbertError(f"{path}: not a model that mtbert trained; name the folder of a trained run")


def _compute(device: str, precision: str) -> Compute:
    for what, value, valid in (("device", device, DEVICES), ("precision", precision, PRECISIONS)):
        if value not in valid:
            raise MtbertError(f"{what} is {value!r}; valid: {', '.join(valid)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise MtbertError("device is cuda, but torch sees no CUDA device; set it to auto or cpu")
    return resolve(device, precision, "auto")


def _settings(folder: Path, config: dict[str, Any]) -> tuple[Run, dict[str, TaskInfo]]:
    """The run's settings, and its tasks as the folder describes them."""
    if "settings" not in config:
        raise MtbertError(f"{folder / CONFIG}: describes an encoder without heads; name the folder of a trained run")
    if missing := {"tasks", "max_tokens", "preprocess", "tokenizer", "base_weights"} - config.keys():
        what = f"has no {', '.join(sorted(missing))}: it was written by an earlier mtbert"
        raise MtbertError(f"{folder / CONFIG}: {what}; train the run again (`dvc repro train@{folder.name}`)")
    try:
        settings = Run.model_validate(config["settings"])
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        what = f"this mtbert does not know its settings ({key}: {error.errors()[0]['msg']})"
        raise MtbertError(f"{folder / CONFIG}: {what}; use the version that wrote it") from None
    return settings, {name: _task(name, about) for name, about in config["tasks"].items()}


def _task(name: str, about: dict[str, Any]) -> TaskInfo:
    texts, labels = tuple(about["texts"]), tuple(about.get("labels", ()))
    return TaskInfo(name, about["kind"], len(texts), texts, labels, about.get("low"), about.get("high"))


def _tokenizer(folder: Path, sha256: str) -> Any:
    path = folder / TOKENIZER
    tokenizer = read_tokenizer(path, AGAIN, AGAIN)
    if sha256_file(path) != sha256:
        raise MtbertError(f"{path}: its bytes changed since it was written (sha256 differs); {AGAIN}")
    return tokenizer
