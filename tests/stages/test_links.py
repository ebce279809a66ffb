"""A symbolic link that leads out of the project is refused, for reading and for writing."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtbert.errors import MtbertError
from mtbert.pipeline.paths import confine
from stages import convert, encoder, evaluate, fetch, figure, plan, prepare, report, statistics, table, train

Stage = Callable[..., Any]
# The place that becomes a link, and a stage that reads or writes there.
PLACES: list[tuple[str, Stage, list[str]]] = [
    ("build", plan.main, []),
    ("build/plan", plan.main, []),
    ("data", fetch.main, []),
    ("data/raw", fetch.main, []),
    ("data/raw/sst-dev.csv", prepare.main, []),
    ("data/prepared", prepare.main, []),
    ("models", encoder.main, []),
    ("models/pretrained/tokenizer.json", prepare.main, []),
    ("models/pretrained/model.safetensors", train.main, ["baseline"]),
    ("models/pretrained", convert.main, ["dora_r4"]),
    ("models/converted", convert.main, ["dora_r4"]),
    ("models/converted/baseline", convert.main, ["baseline"]),
    ("models/converted/baseline", train.main, ["baseline"]),
    ("data/prepared/dev/sst", train.main, ["baseline"]),
    (".mtbert", train.main, ["baseline"]),
    (".mtbert/locks", train.main, ["baseline"]),
    ("models/baseline", train.main, ["baseline"]),
    ("models/baseline/record.json", evaluate.main, ["baseline"]),
    ("results", evaluate.main, ["baseline"]),
    ("results/best_performance/metrics.json", table.main, ["table4"]),
    ("results/best_performance", figure.main, ["figure4"]),
    ("reports/sample", statistics.main, []),
    ("reports/sample/statistics.json", table.main, ["table4"]),
    ("reports/sample/tables", table.main, ["table4"]),
    ("reports/sample/figures", figure.main, ["figure4"]),
    ("data/raw/source.json", report.main, []),
    ("reports/sample", report.main, []),
]


def state(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("place", "stage", "arguments"), PLACES)
def test_a_link_out_of_the_project_is_refused_and_nothing_written_there(
    project: Path, tmp_path: Path, place: str, stage: Stage, arguments: list[str]
) -> None:
    elsewhere, link = tmp_path / "elsewhere", project / place
    if link.exists():
        link.rename(elsewhere)
    else:
        elsewhere.mkdir()
        link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)
    before = state(tmp_path)
    with pytest.raises(
        MtbertError, match=rf"{place}.*: a link leads out of the project, to {re.escape(str(elsewhere))}"
    ):
        stage(*arguments)
    assert state(tmp_path) == before


def test_a_link_to_the_run_that_an_adapter_starts_from_is_refused(
    project: Path, tmp_path: Path, change: Callable[..., None]
) -> None:
    change(dora_r4={"adapter": {"start_from": "best_performance"}})
    (project / "models/best_performance").symlink_to(tmp_path)
    with pytest.raises(MtbertError, match=r"models/best_performance: a link leads out of the project"):
        train.main("dora_r4")


def test_a_link_inside_the_project_is_followed(project: Path) -> None:
    """DVC makes such links with `cache.type symlink`."""
    cache = project / ".dvc/cache"
    cache.mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        (project / "models/baseline" / name).rename(cache / name)
        (project / "models/baseline" / name).symlink_to(cache / name)
    evaluate.main("baseline")
    assert (project / "results/baseline/metrics.json").is_file()


def test_links_in_a_linked_folder_are_checked(project: Path, tmp_path: Path) -> None:
    (project / "inner").mkdir()
    (project / "inner/out").symlink_to(tmp_path)
    (project / "models/link").symlink_to(project / "inner")
    with pytest.raises(MtbertError, match=r"^models/link/out: a link leads out of the project"):
        confine(Path("models/link"))


@pytest.mark.parametrize("there", [True, False])
def test_the_remedy_works_when_pasted(project: Path, tmp_path: Path, there: bool) -> None:
    """The remedy names the link, even if the stage reads a file below it."""
    elsewhere, link = tmp_path / "a b'é", project / "models/a b"
    if there:
        elsewhere.mkdir()
        (elsewhere / "config.json").write_text("{}", encoding="utf-8")
    link.symlink_to(elsewhere)
    with pytest.raises(MtbertError, match=r"^models/a b: a link leads out of the project") as raised:
        confine(Path("models/a b/config.json"))
    subprocess.run(["bash", "-c", str(raised.value).split("`")[1]], check=True)
    confine(Path("models/a b/config.json"))
    assert (project / "models/a b/config.json").is_file() == there


def test_a_cycle_of_links(project: Path) -> None:
    (project / "models/up").symlink_to(project / "models")
    confine(Path("models"))
    (project / "models/self").symlink_to("self")
    with pytest.raises(MtbertError, match=r"^models/self: a link to itself; remove it"):
        confine(Path("models"))


def test_the_user_s_own_data_may_be_outside_the_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(fetch, "copy_course", lambda source, _folder, _declared: asked.append(source))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/sts-dev.csv").write_text("x", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    text = (project / "params.yaml").read_text(encoding="utf-8")
    for old, new in (('"source": "sample"', '"source": "folder"'), ('"data/course"', f'"{tmp_path}/link"')):
        assert old in text
        text = text.replace(old, new)
    (project / "params.yaml").write_text(text, encoding="utf-8")
    plan.main()
    fetch.main()
    assert asked == [tmp_path / "link"]
