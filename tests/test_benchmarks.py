"""What the benchmarks share and write; and a dry run of the GPU benchmarks on a CPU, since time on a GPU is short."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from benchmarks import (
    adapters,
    card,
    card_passes,
    card_steps,
    engines,
    harness,
    methods,
    pairs,
    paper,
    peers,
    prediction,
    scaling,
    several,
    single_task,
    table,
    training,
)
from benchmarks.anatomy import REST, kind_of_kernel
from benchmarks.card import setting_for
from benchmarks.card_report import markdown
from benchmarks.costs import draw_figure
from benchmarks.harness import alternate, summary
from mtbert.data.arrays import Split
from mtbert.data.tokens import Wrapper
from mtbert.errors import MtbertError
from mtbert.params import load_params
from mtbert.settings.run import Run
from mtbert.training.compute import Compute
from mtbert.training.recipe import TokenCount
from mtbert.training.sampling import schedule


def test_rounds_end_with_the_time_and_only_complete_ones_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now, kept = 0.0, []

    def case() -> float:
        nonlocal now
        now += 1.0
        return 1.0

    monkeypatch.setattr(time, "monotonic", lambda: now)
    found = alternate({"a": case, "b": case}, 9, ends=7.0, each=lambda rates: kept.append(len(rates["a"])))
    assert [len(values) for values in found.values()] == [3 - 1, 3 - 1], "a warm-up, two rounds, and half a round"
    assert kept == [1, 2]
    with pytest.raises(TimeoutError, match="no time for one round"):
        alternate({"a": case, "b": case}, 9, ends=now + 3)


def test_a_result_in_fp32_does_not_replace_one_in_bf16(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    rates = {"ours": [1.0], "theirs": [2.0]}
    files = [harness.publish("a", "tokens/s", rates, ours="ours", precision=name).name for name in ("bf16", "fp32")]
    assert files == ["a.json", "a-fp32.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


def test_the_page_says_how_many_rounds_there_are(tmp_path: Path) -> None:
    case = {"median": 2000.0, "ours is": 1.0}
    result = {
        "command": "python -m benchmarks.gpu",
        "where": {"gpu": None, "machine": "some CPU", "date": "2026-11-27"},
        "unit": "tokens/s",
        "ours": "ours",
        "cases": {"ours": case, "theirs": {"median": 500.0, "ours is": 4.0}},
        "rounds": 2,
        "rounds_wanted": 5,
        "failed": {"compiled": "there was no time for it"},
        "targets": [],
    }
    (tmp_path / "gpu-16.json").write_text(json.dumps(result), encoding="utf-8")
    page = markdown(tmp_path)
    for line in (
        "2 of 5 rounds.",
        "| theirs | 500 | 4.00 times as fast |",
        "- compiled: not measured: there was no time",
    ):
        assert line in page


def test_what_is_written_from_the_results_is_current(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    table.main(check=True)  # exits with a message if a page is out of date


def test_a_page_that_is_out_of_date_is_named_and_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("old", encoding="utf-8")
    monkeypatch.setattr(table, "current", lambda: {page: "new"})
    with pytest.raises(SystemExit, match=r"page\.md: out of date; run `python -m benchmarks\.table`"):
        table.main(check=True)
    assert page.read_text(encoding="utf-8") == "old"


def test_the_figure_of_costs_has_equal_bytes_on_every_drawing(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(root)
    for name in ("a.svg", "b.svg"):
        draw_figure(tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_tst_128x256_64x4_2x1_v_bz_coopA_TNT", "products of the linear layers"),
        ("sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize96x64x32", "products of the linear layers"),
        ("void pytorch_flash::flash_bwd_kernel<Flash_bwd_kernel_traits<64, cutlass::bfloat16_t>>", "attention"),
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimizer"),
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel<CopyFunctor>", "casts and copies"),
        ("attention_backward", "attention"),
        ("merge_backward_rows", "weights of adapters"),
        *((name, "element by element") for name in ("residual_norm_backward", "column_sums", "places_backward")),
        ("Memcpy HtoD (Pinned -> Device)", "casts and copies"),
        ("void at::native::(anonymous namespace)::CatArrayBatchedCopy<float>", "casts and copies"),
        ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<c10::BFloat16>", "element by element"),
        ("something new", REST),
    ],
)
def test_kernels_are_grouped_by_name(kernel: str, kind: str) -> None:
    assert kind_of_kernel(kernel) == kind


def test_compiled_cases_are_measured_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """And if there is no time for them, the others keep their results."""
    seen: list[list[str]] = []

    def measured(part: str, cases: dict[str, Any], *_: Any) -> tuple[dict[str, list[float]], dict[str, Any]]:
        seen.append(list(cases))
        if len(seen) == 2:
            raise TimeoutError
        return {name: [1.0] for name in cases}, {"failed": {}}

    monkeypatch.setattr(card_steps, "measured", measured)
    cases = dict.fromkeys(("mtbert", "peer", "peer, compiled"), lambda: lambda: 1.0)
    rates, about = card_steps.compiled_last("large", cases, setting_for(Compute(torch.device("cpu"), False), tiny=True))
    assert seen == [["mtbert", "peer"], list(cases)] and list(rates) == seen[0]
    assert about["failed"] == {"peer, compiled": "there was no time for it"}


@pytest.mark.parametrize(
    "module", [adapters, engines, methods, pairs, prediction, scaling, training], ids=lambda module: module.__name__
)
def test_peers_on_the_cpu_are_compared_with_the_cpu(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a machine with a GPU."""

    def resolve(device: str, *_: Any) -> None:
        raise LookupError(device)

    monkeypatch.setattr(module, "resolve", resolve)
    with pytest.raises(LookupError, match=r"^cpu$"):
        module.main()


def test_the_table_names_a_gpu_only_for_what_it_measured(tmp_path: Path) -> None:
    where = {"gpu": "some GPU", "machine": "some CPU", "instructions": "AVX512", "date": "2026-11-27"}
    target = {"what": "times", "value": 4.0, "bound": 3.0, "at_most": False, "met": True}
    for name in ("gpu-16", "pairs"):
        result = {"command": name, "where": where, "targets": [target]}
        (tmp_path / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    on_gpu, on_cpu = table.table(tmp_path).splitlines()[2:]
    assert "some GPU (" in on_gpu and "some CPU (" in on_cpu and "some GPU" not in on_cpu


def test_the_trainer_takes_one_of_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    once = vars(TrainingArguments)["_setup_devices"]
    real = once.func

    def four(arguments: TrainingArguments) -> torch.device:
        found: torch.device = real(arguments)
        arguments._n_gpu = 4
        return found

    monkeypatch.setattr(once, "func", four)
    monkeypatch.setattr(Trainer, "train", lambda made: taken.append(made.args.n_gpu))
    data = card.made_up("quora", 8)
    peers.trainer(nn.Linear(1, 1), data, card.TOKENS, batch_size=2, steps=1, bf16=False)()
    assert taken == [1]


TINY = setting_for(Compute(torch.device("cpu"), False), tiny=True)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the parts publish, in place of files."""
    found: dict[str, Any] = {}

    def publish(_name: str, _unit: str, rates: Any, **facts: Any) -> None:
        summary(rates, facts["ours"])
        found.update(facts)

    monkeypatch.setattr(card, "write", lambda *_: None)
    for part in (card_passes, card_steps):
        monkeypatch.setattr(part, "publish", publish)
    return found


@pytest.mark.parametrize("bad", list(product(("full", "LoRA", "DoRA"), ("Triton", "torch"))))
def test_a_case_that_fails_does_not_stop_the_passes(
    bad: tuple[str, str], monkeypatch: pytest.MonkeyPatch, published: dict[str, Any]
) -> None:
    def case(_setting: Any, _data: Any, method: str, plain: bool) -> Any:
        if (method, "torch" if plain else "Triton") == bad:
            raise RuntimeError("does not compile")
        return lambda: 1.0

    monkeypatch.setattr(card_passes, "_case", case)
    card_passes.passes(TINY)
    assert published["failed"] == {", ".join(bad): "RuntimeError: does not compile"}
    lost = {"full": 2, "LoRA": 1, "DoRA": 2}[bad[0]] if bad[1] == "Triton" else 0
    assert len(published["targets"]) == 3 - lost


@pytest.mark.parametrize(("bad", "targets"), [("DoRA", 1), ("LoRA", 4), ("full", 4), ("merged", 5)])
def test_a_method_that_fails_does_not_stop_the_adapters(
    bad: str, targets: int, monkeypatch: pytest.MonkeyPatch, published: dict[str, Any]
) -> None:
    def case(adapt: Any, *_: Any) -> Any:
        method = adapt.keywords["method"] if isinstance(adapt, partial) else "full"
        if method == bad.lower():
            raise RuntimeError("does not compile")
        return lambda: 1.0

    def forward(*_: Any) -> float:
        if bad == "merged":
            raise RuntimeError("does not compile")
        return 1.0

    monkeypatch.setattr(card_steps, "_adapted", case)
    monkeypatch.setattr(card_steps, "_peft", lambda *_: lambda: 1.0)
    monkeypatch.setattr(card_steps, "merged_forward", forward)
    card_steps.adapters(TINY)
    assert set(published["failed"]) == ({bad, f"{bad}, graphs"} if bad != "merged" else {"merged forward"})
    assert len(published["targets"]) == targets


def test_peaks_are_not_measured_when_the_time_is_up() -> None:
    assert card.attempted({"peak": lambda: 1}, TINY) == ({"peak": 1}, {})
    assert card.attempted({"peak": lambda: 1}, TINY._replace(ends=0.0)) == ({}, {"peak": "there was no time for it"})


@pytest.mark.parametrize(
    ("names", "message"),
    [(("mtbert", "peer"), "^no case runs; the errors"), (("mtbert",), "^no case of mtbert runs; its errors")],
)
def test_a_part_without_a_case_of_mtbert_says_so(
    names: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, published: dict[str, Any]
) -> None:
    def fails() -> None:
        raise RuntimeError("does not compile")

    cases = {name: fails if name in names else lambda: lambda: 1.0 for name in ("mtbert", "peer")}
    monkeypatch.setattr(card_steps, "full_cases", lambda *_: cases)
    with pytest.raises(MtbertError, match=message):
        card_steps.large(TINY)


@pytest.mark.parametrize(("task", "outputs"), single_task.OUTPUTS.items())
def test_a_model_of_one_task_is_trained_and_predicts(
    make_split: Callable[..., Split], wrapper: Wrapper, task: str, outputs: int
) -> None:
    data = make_split(task, 9)
    model, steps = single_task.trained(data, wrapper, epochs=2, batch_size=4, learning_rate=1e-3, seed=1, steps=-1)
    assert steps == 6
    found = single_task.predicted(model, data, wrapper)
    np.testing.assert_allclose(single_task.predicted(model, data, wrapper, batch_size=2), found, atol=1e-4)
    assert found.shape == (9,) and (outputs == 1 or set(found) <= set(range(outputs)))


def test_several_runs_of_which_some_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are published with the errors; if all fail, that is an error."""
    found: dict[str, Any] = {}

    def together(_setting: Any, processes: int, graphs: bool, _seconds: float) -> list[float]:
        if graphs or processes > 1:
            raise MtbertError("ended early")
        return [1.0]

    monkeypatch.setattr(several, "together", together)
    monkeypatch.setattr(several, "publish", lambda *_, **facts: found.update(facts))
    several.several(TINY)
    assert found["failed"] == dict.fromkeys(("1 x graphs", "2 x graphs", "2 x eager"), "ended early")
    monkeypatch.setattr(several, "PROCESSES", (2,))
    with pytest.raises(MtbertError, match=r"^no case runs; the errors"):
        several.several(TINY)


@pytest.fixture
def run(root: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run on all tasks."""
    monkeypatch.chdir(root)
    return load_params(profile="paper").runs["key_update_2"]


def test_an_annealed_run_is_timed_by_its_own_schedule(run: Run) -> None:
    sizes = {str(task): paper.SIZES[task] // 1000 for task in run.tasks}
    drawn = schedule(sizes, run.batch_size, "annealed", run.epoch_end, run.seed, paper.EPOCHS)
    expected = Counter(draw.task for epoch in drawn for draw in epoch)
    assert paper.scheduled(run.model_copy(update={"sampler": "annealed"}), 1000) == expected


def test_a_task_that_no_epoch_draws_takes_no_time(run: Run) -> None:
    one = run.model_copy(update={"sampler": "sequential", "epoch_end": 1})
    row = paper.extrapolated(one, {str(task): paper.Slice(60.0, 0.0, 0) for task in run.tasks}, 0.0, TINY)
    assert len(row["steps"]) == 1 and row["minutes"] == paper.EPOCHS


def test_a_run_that_cannot_be_timed_is_skipped_with_a_note(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    changes: dict[str, dict[str, Any]] = {
        "good": {},
        "joint": {"sampler": "joint"},
        "tokens": {"epoch_end": TokenCount(tokens=1000)},
        "declared": {"heads": run.heads | {"mnli": run.heads["sst"]}},
    }
    runs = {name: run.model_copy(update=change) for name, change in changes.items()}
    assert list(paper.timed(runs)) == ["good"]
    note = capsys.readouterr().err
    assert note.count("note:") == 1 and all(f"{name} (" in note for name in ("joint", "tokens", "declared"))


PARTS = {"passes", "graphs", "large", "adapters", "16", "several", "paper"}


@pytest.mark.slow
def test_the_gpu_s_benchmark_runs_through(root: Path) -> None:
    folder = root / "reports/benchmarks/rehearsal"
    for old in folder.glob("gpu-*.json"):
        old.unlink()
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny", "--minutes", "10"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    files = folder.glob("gpu-*.json")
    told = {path.stem.removeprefix("gpu-"): json.loads(path.read_text(encoding="utf-8")) for path in files}
    assert told.keys() == PARTS
    assert not any(one.get("failed") for one in told.values())
    assert told["paper"]["complete"] and told["graphs"]["complete"]
    assert {told[part]["rounds"] for part in ("passes", "16", "large", "adapters")} == {2}
    assert "2 of 2 rounds" in (folder / "gpu.md").read_text(encoding="utf-8")
    assert len(told["several"]["cases"]) == 4
