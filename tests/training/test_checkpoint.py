"""Checkpoints are restored exactly or refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mtbert.errors import MtbertError
from mtbert.files import atomic_json, sha256_file
from mtbert.pretrained.store import read_safetensors
from mtbert.seal import sealed
from mtbert.training.checkpoint import load_checkpoint, save_checkpoint
from mtbert.training.work import checkpoint_step

PROGRESS = {"history": [{"epoch": 0, "loss": None, "dev": 0.1 + 0.2}], "tokens": 7}


def trained(seed: int, steps: int = 3, width: int = 4) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model with a frozen tensor and one that never gets a gradient, and its optimizer, after some steps."""
    torch.manual_seed(seed)
    model = nn.ModuleDict({"used": nn.Linear(3, width), "unused": nn.Linear(2, 2), "frozen": nn.Linear(2, 2)})
    model["frozen"].requires_grad_(False)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, fused=True)
    for _ in range(steps):
        optimizer.zero_grad()
        model["used"](torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def one_more_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    optimizer.zero_grad()
    model["used"](torch.ones(1, 3)).sum().backward()  # type: ignore[index]
    optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model["used"].parameters()])  # type: ignore[index]


def test_round_trip_continues_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    save_checkpoint(tmp_path, model, optimizer, 3, PROGRESS)
    other, other_optimizer = trained(1, steps=0)
    assert load_checkpoint(tmp_path, other, other_optimizer) == (3, PROGRESS, {})
    assert checkpoint_step(tmp_path) == 3
    assert torch.equal(other["unused"].weight, model["unused"].weight)  # type: ignore[index]
    assert torch.equal(one_more_step(other, other_optimizer), one_more_step(model, optimizer))
    assert not torch.equal(other["frozen"].weight, model["frozen"].weight)  # type: ignore[index]


def test_a_parameter_may_be_called_like_a_part_of_the_optimizer_s_state(tmp_path: Path) -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.ModuleDict({"inner": nn.ParameterDict({"step": torch.ones(2), "exp_avg": torch.ones(3)})})
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        sum(parameter.sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
        optimizer.step()
        return model, optimizer

    save_checkpoint(tmp_path, *made(), 1, PROGRESS)
    assert load_checkpoint(tmp_path, *made()) == (1, PROGRESS, {})


def test_without_the_optimizer_s_state_the_next_step_differs(tmp_path: Path) -> None:
    """So the comparison above would notice a missing optimizer state."""
    model, optimizer = trained(0)
    save_checkpoint(tmp_path, model, optimizer, 3, PROGRESS)
    other, other_optimizer = trained(1, steps=0)
    load_checkpoint(tmp_path, other, other_optimizer)
    other_optimizer.state.clear()
    assert not torch.equal(one_more_step(other, other_optimizer), one_more_step(model, optimizer))


def test_no_checkpoint(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "absent", *trained(0)) is None
    assert checkpoint_step(tmp_path / "absent") == 0


def test_a_new_checkpoint_replaces_the_old_and_the_leftovers_of_a_kill(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    save_checkpoint(tmp_path, model, optimizer, 3, PROGRESS)
    (tmp_path / ".step-00000004.safetensors.k1ll3d").write_bytes(b"half")
    (tmp_path / ".latest.json.k1ll3d__").write_bytes(b"half")
    (tmp_path / ".steps.csv.k1ll3d__").write_bytes(b"half")
    (tmp_path / "step-00000004.safetensors").write_bytes(b"whole, but latest.json does not name it yet")
    (tmp_path / "steps.csv").write_text("kept", encoding="utf-8")
    assert load_checkpoint(tmp_path, *trained(0)) is not None, "until latest.json names another, the old one counts"
    save_checkpoint(tmp_path, model, optimizer, 5, PROGRESS)
    latest = json.loads((tmp_path / "latest.json").read_text(encoding="utf-8"))
    assert latest["step"] == 5
    assert {path.name for path in tmp_path.iterdir()} == {"latest.json", latest["file"], "steps.csv"}


def test_saving_a_step_again_leaves_the_checkpoint_valid_until_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With held-out examples, an epoch's last step is saved with other weights of the best epoch after its evaluation."""
    model, optimizer = trained(0)
    save_checkpoint(tmp_path, model, optimizer, 3, PROGRESS, {"used.weight": torch.zeros_like(model["used"].weight)})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mtbert.training.checkpoint.atomic_json", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, model, optimizer, 3, PROGRESS, {"used.weight": torch.ones_like(model["used"].weight)})
    found = load_checkpoint(tmp_path, *trained(0))
    assert found is not None
    assert not found[2]["used.weight"].any()


def flip(folder: Path) -> None:
    (path,) = folder.glob("step-*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def truncate(folder: Path) -> None:
    (path,) = folder.glob("step-*")
    path.write_bytes(path.read_bytes()[:-8])


def remove(folder: Path) -> None:
    (path,) = folder.glob("step-*")
    path.unlink()


def halve_latest(folder: Path) -> None:
    text = (folder / "latest.json").read_text(encoding="utf-8")
    (folder / "latest.json").write_text(text[: len(text) // 2], encoding="utf-8")


def empty_latest(folder: Path) -> None:
    (folder / "latest.json").write_bytes(b"")


def list_latest(folder: Path) -> None:
    (folder / "latest.json").write_text("[]", encoding="utf-8")


def no_step(folder: Path) -> None:
    latest = json.loads((folder / "latest.json").read_text(encoding="utf-8"))
    del latest["step"]
    (folder / "latest.json").write_text(json.dumps(latest), encoding="utf-8")


def other_digit(folder: Path) -> None:
    text = (folder / "latest.json").read_text(encoding="utf-8")
    (folder / "latest.json").write_text(text.replace('"tokens": 7', '"tokens": 8'), encoding="utf-8")


DAMAGES = [flip, truncate, remove, halve_latest, empty_latest, list_latest, no_step, other_digit]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_with_the_remedy(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    model, optimizer = trained(0)
    save_checkpoint(tmp_path, model, optimizer, 3, PROGRESS)
    damage(tmp_path)
    with pytest.raises(MtbertError, match=r"damaged checkpoint") as caught:
        load_checkpoint(tmp_path, model, optimizer)
    assert f"remove {tmp_path} to train from the beginning" in str(caught.value)


def test_tensors_of_another_model_are_refused(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    save_checkpoint(tmp_path, model, optimizer, 3, PROGRESS)
    with pytest.raises(MtbertError, match=r"used\.weight does not fit the model"):
        load_checkpoint(tmp_path, *trained(0, steps=0, width=5))
    smaller = nn.ModuleDict({"used": nn.Linear(3, 4)})
    with pytest.raises(MtbertError, match=r"unknown tensors model\.unused\.bias"):
        load_checkpoint(tmp_path, smaller, torch.optim.AdamW(smaller.parameters()))
    larger = nn.ModuleDict({"used": nn.Linear(3, 4), "unused": nn.Linear(2, 2), "more": nn.Linear(1, 1)})
    with pytest.raises(MtbertError, match=r"more\.weight does not fit the model"):
        load_checkpoint(tmp_path, larger, torch.optim.AdamW(larger.parameters()))


def test_a_tensor_that_would_broadcast_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, *trained(0, width=1), 3, PROGRESS)
    with pytest.raises(MtbertError, match=r"used\.weight does not fit the model"):
        load_checkpoint(tmp_path, *trained(0, steps=0, width=4))


def resealed(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Rewrite the checkpoint's tensors and its checksums, so that only the tensors show the change."""
    (path,) = folder.glob("step-*")
    tensors = read_safetensors(path)
    change(tensors)
    save_file(tensors, path)
    latest = json.loads((folder / "latest.json").read_text(encoding="utf-8"))
    latest.pop("seal")
    atomic_json(folder / "latest.json", sealed({**latest, "sha256": sha256_file(path)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"model.used.bias": t["model.used.bias"].double()}), r"used\.bias does not fit .*float64"),
        (lambda t: t["model.used.bias"].fill_(float("nan")), r"model\.used\.bias holds NaN or infinity"),
        (
            lambda t: t.pop("optimizer.used.bias.exp_avg"),
            r"the optimizer's state of used\.bias is incomplete or unknown",
        ),
        (lambda t: t.update({"optimizer.used.bias.exp_avg": torch.ones(1)}), r"exp_avg does not fit .*shape \(1,\)"),
        (lambda t: t["optimizer.used.bias.exp_avg_sq"].fill_(float("inf")), r"exp_avg_sq holds NaN or infinity"),
        (lambda t: t.update({"optimizer.gone.step": torch.ones(())}), r"unknown tensors optimizer\.gone\.step"),
        (
            lambda t: t.update({f"x{n}": torch.ones(()) for n in range(9)}),
            r"unknown tensors x0, x1, x2, x3, x4; remove",
        ),
    ],
)
def test_a_checkpoint_s_tensors_are_checked_before_any_is_used(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    save_checkpoint(tmp_path, *trained(0), 3, PROGRESS)
    resealed(tmp_path, change)
    model, optimizer = trained(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(MtbertError, match=message):
        load_checkpoint(tmp_path, model, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_that_are_not_finite_never_become_a_checkpoint(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    save_checkpoint(tmp_path, model, optimizer, 3, PROGRESS)
    model["used"].weight.data[0, 0] = float("nan")  # type: ignore[index]
    with pytest.raises(
        MtbertError, match=r"step 4: model\.used\.weight holds NaN or infinity; lower this run's learning rates"
    ):
        save_checkpoint(tmp_path, model, optimizer, 4, PROGRESS)
    assert checkpoint_step(tmp_path) == 3
