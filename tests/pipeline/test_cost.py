"""The estimate before a profile starts: its steps and tokens equal the loop's; what is printed; which inputs are errors."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from ruamel.yaml import YAML

from mtbert.corpus.source import copy_course
from mtbert.data.arrays import Split
from mtbert.data.batches import make_batch
from mtbert.data.tokens import Wrapper
from mtbert.errors import MtbertError
from mtbert.params import Params, load_params
from mtbert.pipeline.ahead import views_of
from mtbert.pipeline.cost import main
from mtbert.pipeline.rates import FULL, Rate, Rates
from mtbert.pipeline.sizes import Rows, count_rows, encoder_size
from mtbert.pipeline.workload import workload
from mtbert.settings.run import Run
from mtbert.tasks.paper import TASKS
from mtbert.training.further import Sentences
from mtbert.training.recipe import FurtherPretraining
from mtbert.training.sampling import epoch_schedule, sampler_in
from tests.tiny import tiny_model

ROOT = Path(__file__).parents[2]
RUNS = load_params(ROOT / "params.yaml").runs
FULL_RUNS = [name for name, run in RUNS.items() if not run.adapter]  # an adapter changes neither steps nor tokens
SIZES = {"sst": 24, "quora": 50, "sts": 19}


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Params]:
    """params(data={…}, …): these keys over those of params.yaml and a tiny encoder, in a project of its own."""
    monkeypatch.chdir(tmp_path)

    def write(**sections: dict[str, Any]) -> Params:
        tree = json.loads(json.dumps(YAML(typ="safe").load(ROOT / "params.yaml")))
        tiny = {"seed": 1, "layers": 1, "hidden": 32, "heads": 2, "intermediate": 48, "positions": 256}
        sizes = {task: {"train": 16, "dev": 12, "test": 8} for task in TASKS}
        tree["data"]["sample"]["sizes"] = sizes
        tree["compute"] |= {"device": "cpu", "precision": "fp32", "threads": 1}
        tree["profiles"]["sample"]["encoder"] = {"source": "random", "random": tiny}
        for name, keys in sections.items():
            for key, value in keys.items():
                # Keys that a profile may not set are at the top level.
                (tree[name] if key == "path" else tree["profiles"]["sample"][name])[key] = value
        Path("params.yaml").write_text(json.dumps(tree), encoding="utf-8")
        return load_params()

    return write


@pytest.fixture
def rows_in(params: Callable[..., Params], tmp_path: Path) -> Callable[..., Rows]:
    """rows_in(source, path): the rows that `count_rows` finds there."""

    def count(source: str, path: str = "course") -> Rows:
        settings = params(data={"source": source, "path": path})
        (tmp_path / "tokenizer.json").write_bytes(encoder_size(settings).tokenizer)
        return count_rows(settings, tmp_path)

    return count


def write_course(folder: Path, rows: int) -> None:
    folder.mkdir()
    for task in TASKS.values():
        for split in ("train", "dev"):
            texts = ["a good film ."] * len(task.texts)
            lines = ["\t".join(["", "id", *task.texts, task.label])]
            lines += ["\t".join([str(row), f"{row:x}", *texts, "1.0"]) for row in range(rows)]
            lines.append("cut\toff")
            (folder / task.file(split)).write_text("\n".join(lines) + "\n", encoding="utf-8")


def rows_of(data: dict[str, Split]) -> Rows:
    """These training data, and four dev examples of each task."""
    return Rows({task: {"train": len(split), "dev": 4} for task, split in data.items()}, data, "")


def features_of(run: Run) -> list[list[str] | None]:
    return [getattr(run.heads[task], "features", None) for task in ("quora", "sts")]


def tokens_of_training(run: Run, data: dict[str, Split], wrapper: Wrapper) -> tuple[int, int]:
    """Steps and tokens of the training loop."""
    model = tiny_model(run.pooling, *features_of(run))
    sizes: dict[str, int] = {task: len(data[task]) for task in run.tasks}
    draws = [
        draw
        for epoch in range(run.epochs)
        for draw in epoch_schedule(
            sizes, run.batch_size, sampler_in(run.sampler, epoch, run.epochs), run.epoch_end, run.seed, epoch
        )
    ]
    batches = [make_batch(task, data[task], chosen, model.views(task), wrapper) for task, chosen in draws]
    return len(draws), sum(batch.stream.tokens for batch in batches)


# With a fixed number of steps, random samplers draw other tasks in each epoch.
FIXED = [name for name in FULL_RUNS if RUNS[name].sampler in ("sequential", "round_robin")]


@pytest.mark.parametrize(
    ("name", "epoch_end"),
    [*((name, "depletion") for name in FULL_RUNS), *((name, 13) for name in (*FIXED, "annealed"))],
)
def test_steps_and_tokens_are_those_of_the_loop(
    name: str, epoch_end: str | int, make_split: Callable[..., Split], wrapper: Wrapper
) -> None:
    update = {"epochs": 3, "epoch_end": epoch_end, "batch_size": 8}
    if name == "annealed":
        name, update["sampler"] = "best_performance", name
    run = RUNS[name].model_copy(update=update)
    data = {}
    for task, size in SIZES.items():
        split = make_split(task, size)
        # All sentences have one length, so the mean holds for whichever rows are drawn. Pairs are longer than max_tokens.
        second = _equal(size, 14) if split.ids2 is not None else (None, None)
        data[task] = Split(task, "train", Path(), *_equal(size, 9), *second, split.labels)
    work = workload(run, rows_of(data), wrapper.max_tokens)
    assert (work.steps, round(work.tokens)) == tokens_of_training(run, data, wrapper)


def test_tokens_of_unequal_sentences_are_those_of_the_loop(make_split: Callable[..., Split], wrapper: Wrapper) -> None:
    run = RUNS["sampler_sequential"].model_copy(update={"epochs": 2, "epoch_end": "depletion", "batch_size": 8})
    data = {task: make_split(task, size) for task, size in SIZES.items()}
    rows = rows_of(data)
    work = workload(run, rows, wrapper.max_tokens)
    assert (work.steps, round(work.tokens)) == tokens_of_training(run, data, wrapper)
    longer = workload(run.model_copy(update={"epochs": 5}), rows, wrapper.max_tokens)
    assert longer.watched == pytest.approx(work.watched * 6 / 3), "before training too"


def test_a_joint_run_passes_back_for_every_task_and_for_what_it_measures(make_split: Callable[..., Split]) -> None:
    """One epoch of six steps, each with a batch of every task; conflicts are measured before steps 1, 5."""
    change = {"sampler": "joint", "measure_conflicts": 4, "epochs": 1, "epoch_end": 6, "batch_size": 8}
    run = RUNS["best_performance"].model_copy(update=change)
    work = workload(run, rows_of({task: make_split(task, 64) for task in TASKS}), 256)
    assert (work.steps, work.backwards) == (6, (6 + 2) * 3)
    assert work.backward_tokens == pytest.approx(work.tokens * 8 / 6)


def test_further_pretraining_reads_single_sentences(make_split: Callable[..., Split], wrapper: Wrapper) -> None:
    data = {task: make_split(task, 64) for task in TASKS}
    best, settings = RUNS["best_performance"], FurtherPretraining(steps=5, batch_size=4, learning_rate=0.1)
    before, after = (
        workload(best.model_copy(update={"further_pretraining": further}), rows_of(data), wrapper.max_tokens)
        for further in (None, settings)
    )
    sentences = Sentences(data.values())
    lengths = [len(wrapper.single(sentences[n])[0]) for n in range(len(sentences))]
    assert after.backwards == before.backwards + 5
    assert after.backward_tokens - before.backward_tokens == pytest.approx(5 * 4 * np.mean(lengths))


def test_two_passes_take_twice_the_tokens(make_split: Callable[..., Split], wrapper: Wrapper) -> None:
    data = {task: make_split(task, size) for task, size in SIZES.items()}
    once, twice = (
        workload(RUNS["baseline"].model_copy(update={"r_drop": alpha}), rows_of(data), wrapper.max_tokens)
        for alpha in (None, 1.0)
    )
    assert twice == once._replace(tokens=2 * once.tokens, backward_tokens=2 * once.tokens)


def _equal(rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(rows * length, 5, np.uint16), np.arange(rows + 1) * length


def test_bad_rows_of_a_folder_are_not_counted(rows_in: Callable[..., Rows]) -> None:
    write_course(Path("course"), 1500)
    rows = rows_in("folder")
    assert rows.sizes == {task: {"train": 1500, "dev": 1500} for task in TASKS}
    assert rows.source == "course"
    assert all(512 <= len(split) <= 1024 and set(np.diff(split.offsets1)) == {4} for split in rows.sample.values())


def test_missing_files_raise_the_error_of_fetch(rows_in: Callable[..., Rows], tmp_path: Path) -> None:
    write_course(Path("course"), 3)
    Path("course/sts-dev.csv").unlink()
    with pytest.raises(MtbertError, match=r"sts-dev\.csv") as here:
        rows_in("folder")
    with pytest.raises(MtbertError) as there:
        copy_course(Path("course"), tmp_path / "elsewhere")
    assert str(here.value) == str(there.value)


def test_a_file_without_a_good_row_is_named_by_the_users_path(rows_in: Callable[..., Rows]) -> None:
    write_course(Path("course"), 3)
    Path("course/quora-train.csv").write_text("\tid\tsentence1\tsentence2\tis_duplicate\ncut\toff\n")
    with pytest.raises(MtbertError, match=r"^course/quora-train\.csv: no row can be used"):
        rows_in("folder")


def test_before_a_download_the_published_sizes_are_used_and_named(rows_in: Callable[..., Rows]) -> None:
    rows = rows_in("download")
    assert rows.sizes == {name: task.course.rows for name, task in TASKS.items() if task.course}
    assert rows.sizes["quora"]["train"] == 141498
    assert "published" in rows.source


def test_after_a_download_its_rows_count(rows_in: Callable[..., Rows]) -> None:
    write_course(Path("course"), 7)
    copy_course(Path("course"), Path("data/raw"))
    source = json.loads(Path("data/raw/source.json").read_text())
    Path("data/raw/source.json").write_text(json.dumps(source | {"source": "download"}))
    assert rows_in("download").sizes["quora"] == {"train": 7, "dev": 7}


def test_the_sample_is_counted_as_it_will_be_generated(rows_in: Callable[..., Rows]) -> None:
    rows = rows_in("sample")
    assert rows.sizes["sts"] == {"train": 16, "dev": 12, "test": 8}
    assert {task: len(split) for task, split in rows.sample.items()} == dict.fromkeys(TASKS, 16)


def test_the_hub_is_not_contacted_for_an_encoder(params: Callable[..., Params]) -> None:
    hub = {"source": "hub", "name": "google-bert/bert-base-uncased", "revision": "0" * 40}
    size = encoder_size(params(encoder=hub))
    assert (size.config.layers, size.config.hidden) == (12, 768)
    assert "not downloaded yet" in size.source


def test_the_estimate_names_every_run_and_fits_80_columns(params: Callable[..., Params]) -> None:
    settings = params()
    out = io.StringIO()
    main(console=Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    printed = {line.split()[0]: line.split()[1:] for line in lines if line.split()}
    assert set(settings.runs) <= set(printed)
    assert all(float(printed[name][-1]) >= 0 for name in settings.runs)
    assert printed["all"][1] == f"{sum(int(printed[name][0].replace(',', '')) for name in settings.runs):,}"
    for part in ("estimate", "at the peak", "disk", "tokens/s", "in all"):
        assert part in out.getvalue()


def test_a_download_is_estimated_before_it_is_done(params: Callable[..., Params]) -> None:
    params(data={"source": "folder", "path": "data/none"})
    with pytest.raises(MtbertError, match="data/none: missing"):
        main()
    out = io.StringIO()
    main(data="download", console=Console(file=out, width=80))
    assert "the published sizes" in out.getvalue()


def test_the_folder_of_the_option_may_be_anywhere(params: Callable[..., Params], tmp_path: Path) -> None:
    params(data={"source": "folder", "path": "data/none"})
    Path("mine").mkdir()
    with pytest.raises(MtbertError, match=f"^{tmp_path}/mine: missing ids-sst-train.csv"):
        main(data="../" + tmp_path.name + "/mine")
    with pytest.raises(
        MtbertError, match=r"^--data: there is no folder ../none; name the folder with the course's files"
    ):
        main(data="../none")
    params()
    with pytest.raises(
        MtbertError, match=r"^--data: the profile sample reads no folder \(data.source: sample\); leave it"
    ):
        main(data="mine")


def test_an_unknown_profile_is_refused(params: Callable[..., Params]) -> None:
    params()
    with pytest.raises(MtbertError, match="no profile is called 'corse'; did you mean 'course'"):
        main("corse")


@pytest.mark.parametrize("name", FULL_RUNS)
def test_views_are_those_of_the_model(name: str) -> None:
    run = RUNS[name]
    model = tiny_model(run.pooling, *features_of(run))
    assert views_of(run) == {task: model.views(task) for task in TASKS}


def test_seconds_follow_from_steps_and_tokens() -> None:
    full = Rate(step=0.5, token=0.001, run="r", tokens=100, seconds=0.6, parameters=1000, trained=1000)
    rates = Rates({FULL: full, "dora": full._replace(step=0.25)}, {}, {}, predict=0.0001, layers=6, memory=(0, 0))
    assert rates.seconds(RUNS["best_performance"], 10, 2000, 1000) == pytest.approx(5 + 2 + 0.1)
    assert rates.seconds(RUNS["dora_r16"], 10, 2000, 1000) == pytest.approx(2.5 + 2 + 0.1)
    # With cls pooling, three quarters of the last of six layers are computed for [CLS] alone.
    assert rates.seconds(RUNS["baseline"], 10, 2000, 0) == pytest.approx(5 + 2 * 7 / 8)


@pytest.mark.parametrize("study", ["smaplers", "studies/samplers"])
def test_an_unknown_study_names_the_nearest(params: Callable[..., Params], study: str) -> None:
    params()
    Path("studies/samplers").mkdir(parents=True)
    Path("studies/samplers/params.yaml").touch()
    with pytest.raises(MtbertError, match=f"^--study: studies/{study}/params.yaml: not found; did you mean 'samplers'"):
        main(study=study)
