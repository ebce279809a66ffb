"""docs/adapters.md: its table has every method, with settings that are valid and the numbers of parameters that follow from them."""

import re
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from mtbert.model.bert import BertConfig, BertEncoder
from mtbert.params import load_study
from mtbert.peft.convert import add_adapter, count_parameters
from mtbert.peft.registry import ADAPTERS, Adapter
from tests.tiny import multitask

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/adapters.md").read_text(encoding="utf-8")
yaml = YAML(typ="safe")
# Method: the cells of its row.
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in PAGE.splitlines()
    if line.startswith("| `") and not line.startswith("| `method`")
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
}
MINILM = BertConfig(layers=6, hidden=384, heads=12, intermediate=1536)


def trained(adapter: Adapter, config: BertConfig) -> tuple[int, float]:
    """How many parameters of adapter and encoder train, under mean pooling, and their share of the model's."""
    with torch.device("meta"):
        model = multitask(BertEncoder(config), "mean", ["u", "v", "c"], ["u", "v", "c"])
        add_adapter(model, adapter, seed=0)
    counts, heads = count_parameters(model), sum(parameter.numel() for parameter in model.heads.parameters())
    own = (counts["trainable"] or 0) - heads
    return own, own / (counts["total"] or 1)


@pytest.mark.parametrize("method", ADAPTERS)
def test_a_row_of_the_table(method: str) -> None:
    _, settings, count, _ = ROWS[method]
    given = yaml.load(f"{{{settings.strip('`')}}}") if settings else {}
    shared = {"method": method, "learning_rate": 1e-3, "train_rest": False, "start_from": "pretrained"}
    own, share = trained(ADAPTERS[method].model_validate(shared | given), BertConfig())
    assert count == f"{own:,} ({share:.2%})"


def test_the_table_has_no_other_rows() -> None:
    assert ROWS.keys() == ADAPTERS.keys()


def test_the_example_is_valid(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "params.yaml").write_text(block, encoding="utf-8")
    study = load_study(tmp_path / "params.yaml", ROOT / "params.yaml")
    assert {run.adapter.method for run in study.runs.values() if run.adapter} == {"oft"}


@pytest.mark.parametrize("study", ["zoo_small", "zoo_large"])
def test_methods_of_a_size_have_about_as_many_parameters_as_lora(study: str) -> None:
    """But for VeRA, which is smaller at any rank that is used."""
    runs = load_study(ROOT / f"studies/{study}/params.yaml", ROOT / "params.yaml").runs
    sizes = {}
    for run in runs.values():
        if (
            run.adapter
            and not run.adapter.train_rest
            and set(ADAPTERS[run.adapter.method].model_fields) & {"rank", "block_size", "size"}
        ):
            sizes[run.adapter.method] = trained(run.adapter, MINILM)[0]
    lora = sizes["lora"]
    assert 0 < sizes.pop("vera") < lora
    assert all(0.85 * lora < size < 1.15 * lora for size in sizes.values()), sizes
