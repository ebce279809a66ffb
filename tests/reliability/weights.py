"""Figure 6: weights and checkpoints with changed bytes or tensors are refused before use; the error names file and tensor."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mtbert.errors import MtbertError
from mtbert.files import atomic_json, sha256_file
from mtbert.pretrained import store
from mtbert.pretrained.checks import check_tensors
from mtbert.pretrained.store import load_model, save_model
from mtbert.pretrained.weights import random_weights
from mtbert.seal import sealed
from mtbert.training import checkpoint
from mtbert.training.checkpoint import load_checkpoint, save_checkpoint
from tests.reliability.trial import Same, Tally
from tests.tiny import TINY

Tensors = dict[str, Tensor]
SHAPES = {name: tuple(tensor.shape) for name, tensor in random_weights(TINY, 0).items()}


def run(quick: bool, seed: int, folder: Path) -> list[Tally]:
    """3,000 mutations (240 in the quick tier), of a model's folder and of a work folder in turn."""
    tally = Tally(6, "mutated weights and checkpoints", "100% refused, naming file and tensor", seed)
    rng = random.Random(seed)
    subjects = [ModelFolder(folder / "model"), CheckpointFolder(folder / "work")]
    for n in range(240 if quick else 3000):
        tally.trial(*subjects[n % 2].judged(rng, rng.choice(KINDS)))
    for bug, owner, part, blind in BLIND:
        with patch.object(owner, part, blind):
            outcomes = [subject.judged(rng, kind)[0] for subject in subjects for kind in KINDS for _ in range(60)]
        tally.control(not all(outcomes), bug)
    return [tally]


class ModelFolder:
    """A model as one stage writes it and the next one loads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        save_model(folder, random_weights(TINY, 0), {"training": {"losses": [1 / (3 + n) for n in range(20)]}})
        self.weights, self.json = folder / store.WEIGHTS, folder / store.CONFIG
        self.sound = {path: path.read_bytes() for path in (self.weights, self.json)}
        self.expected = self.load()

    def load(self) -> Any:
        """As mtbert.pipeline.models does: the checksum first, then every tensor."""
        tensors, config = load_model(self.folder)
        check_tensors(tensors, SHAPES, str(self.weights))
        return tensors, config

    def same(self, one: Any, other: Any) -> bool:
        return (
            one[1] == other[1]
            and one[0].keys() == other[0].keys()
            and all(torch.equal(tensor, other[0][name]) for name, tensor in one[0].items())
        )

    def judged(self, rng: random.Random, mutate: "Mutation") -> tuple[bool, str]:
        """Whether a mutation is refused with file and tensor, or (such as a space in JSON) changes nothing."""
        for path, data in self.sound.items():
            path.write_bytes(data)
        file, tensor, what = mutate(self, rng)
        try:
            found = self.load()
        except MtbertError as error:
            message = str(error)
            return str(file) in message and tensor in message, f"{type(self).__name__}, {what}: {message}"
        except Exception as error:
            return False, f"{type(self).__name__}, {what}: {type(error).__name__}: {error}"
        return self.same(found, self.expected), f"{type(self).__name__}, {what}: accepted"


class CheckpointFolder(ModelFolder):
    """A checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        model, optimizer = _trained(1)
        history = [{"epoch": epoch, "train_loss": 1 / (3 + epoch)} for epoch in range(20)]
        save_checkpoint(folder, model, optimizer, 3, {"tokens": 1234, "loss_sum": 1 / 3, "history": history})
        (self.weights,), self.json = folder.glob("step-*"), folder / checkpoint.LATEST
        self.sound = {path: path.read_bytes() for path in (self.weights, self.json)}
        self.expected = self.load()

    def load(self) -> Any:
        model, optimizer = _trained(2)
        found = load_checkpoint(self.folder, model, optimizer)
        state = {
            f"{n}.{key}": value for n, p in enumerate(model.parameters()) for key, value in optimizer.state[p].items()
        }
        return {**model.state_dict(), **state}, found


Mutation = Callable[[ModelFolder, random.Random], tuple[Path, str, str]]
"""Changes one of the two files; returns the file and the tensor that the error must name, and what was done."""


def _digit(subject: ModelFolder, rng: random.Random) -> tuple[Path, str, str]:
    """Change a digit of a number in the JSON file, which stays valid JSON."""
    data = bytearray(subject.json.read_bytes())
    at = rng.choice([n for n, byte in enumerate(data) if chr(byte).isdigit()])
    data[at] = ord("1") + (data[at] - ord("1") + 1) % 9
    subject.json.write_bytes(data)
    return subject.json.parent, "", f"digit at byte {at} of {subject.json.name}"


def _mangled(path: Path, rng: random.Random) -> tuple[Path, str, str]:
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    kind = rng.choice(["truncate", "extend", "flip", "zero", "swap", "empty"])
    if kind == "truncate":
        del data[at:]
    elif kind == "extend":
        data += rng.randbytes(rng.randint(1, 64))
    elif kind == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "zero":
        data[at : at + 16] = bytes(len(data[at : at + 16]))
    elif kind == "swap":
        half = len(data) // 2
        data = data[half:] + data[:half]
    else:
        data.clear()
    path.write_bytes(data)
    # A damaged latest.json may name any file, so the error need only name the folder.
    return path.parent, "", f"{kind} at byte {at} of {path.name}"


def _tensor(subject: ModelFolder, rng: random.Random) -> tuple[Path, str, str]:
    """Change a tensor and update every checksum, as a faulty program would, so that only the tensors show it."""
    tensors = load_file(subject.weights)
    name = rng.choice(sorted(tensors))
    kind = rng.choice(["reshape", "rename", "retype", "NaN", "infinity", "remove", "add", "shorten"])
    old = tensors[name]
    if kind == "reshape":
        tensors[name] = old.reshape(1, *old.shape)
    elif kind == "rename":
        tensors[f"{name}x"] = tensors.pop(name)
    elif kind == "retype":
        tensors[name] = old.to(rng.choice([torch.float16, torch.bfloat16, torch.float64, torch.int32]))
    elif kind in ("NaN", "infinity"):
        values = old.flatten().clone()
        values[rng.randrange(len(values))] = float("nan") if kind == "NaN" else float("-inf")
        tensors[name] = values.view(old.shape)
    elif kind == "remove":
        del tensors[name]
    elif kind == "add":
        tensors[f"{name}.more"] = old.clone()
    else:
        tensors[name] = old.flatten()[:-1].clone() if old.dim() else torch.ones(2)
    save_file(tensors, subject.weights)
    sealed_json = json.loads(subject.json.read_text(encoding="utf-8"))
    sealed_json.pop("seal")
    atomic_json(subject.json, sealed({**sealed_json, "sha256": sha256_file(subject.weights)}))
    # The error names the parameter, also if part of its optimizer state is missing.
    parameter = name.removeprefix("model.").removeprefix("optimizer.")
    for part in (".step", ".exp_avg", ".exp_avg_sq"):
        parameter = parameter.removesuffix(part)
    return subject.weights, parameter, f"{kind} of {name}"


KINDS: list[Mutation] = [
    lambda subject, rng: _mangled(subject.weights, rng),
    lambda subject, rng: _mangled(subject.json, rng),
    _digit,
    _tensor,
]


def _trained(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def _trusting(value: dict[str, Any]) -> dict[str, Any]:
    return {key: part for key, part in value.items() if key != "seal"}


BLIND: list[tuple[str, Any, str, Any]] = [
    ("a model's checksum not compared", store, "sha256_file", lambda path: Same(sha256_file(path))),
    ("a checkpoint's checksum not compared", checkpoint, "sha256_file", lambda path: Same(sha256_file(path))),
    ("config.json not sealed", store, "unsealed", _trusting),
    ("latest.json not sealed", checkpoint, "unsealed", _trusting),
    ("a checkpoint's tensors not checked", checkpoint, "_misfit", lambda *_: ""),
    ("NaN accepted", torch, "isfinite", torch.ones_like),
]
