"""The one command for a GPU is rehearsed where there is none, since whoever has one has it for minutes."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import card_steps, table
from benchmarks.anatomy import REST, kind_of_kernel
from benchmarks.card import setting_for
from benchmarks.card_report import markdown
from benchmarks.costs import draw_figure
from benchmarks.harness import RESULTS, alternate
from mtbert.training.compute import Compute


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


def test_the_page_says_what_there_is_of_each_part(root: Path) -> None:
    page = markdown(root / RESULTS)
    for line in (
        "Batches of 8. 1 of 3 measurements.",
        "| replayed | 4.07 | 0.84 | 5 |",
        "Batches of 32. 12 of 15 runs.",
        "Batches of 16. 5 of 5 rounds.",
        "| DoRA, Triton | 302,815 | 3.27 | 0.83 times as fast |",
        "code not under git.",
    ):
        assert line in page
    assert "\n\n\n" not in page


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
