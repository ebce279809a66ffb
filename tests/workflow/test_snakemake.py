"""The Snakefile of a graph of trivial stages: what runs, in which order, with which resources, and what a failure stops."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mtbert.errors import MtbertError
from mtbert.params import Params, load_params
from mtbert.pipeline.planning import settings_of_stages
from mtbert.settings.project import Resources, Workflow
from mtbert.workflow.graph import Job, stale_jobs
from mtbert.workflow.snakemake import DONE, RECORD, SNAKEFILE, main, snakefile
from tests.project import ROOT, call, must

RUN = ("snakemake", "--snakefile", str(SNAKEFILE), "--cores", "2", "--keep-going")
PARAMS = load_params(ROOT / "params.yaml")
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # in DVC's own code


def write_graph(root: Path, left: str = "echo x") -> None:
    """plan -> raw -> left, right -> both, where `both` reads the parent folder of two outs; with odd characters in the names."""

    def stage(out: str, *deps: str, command: str = "echo x") -> dict[str, object]:
        return {"cmd": f"mkdir -p '{out}' && {command} > '{out}/{{é}} x'", "deps": list(deps), "outs": [out]}

    stages = {
        "plan": stage("build/plan"),
        "raw": stage("raw é", "build/plan"),
        "left": stage("out/left", "raw é", command=left),
        "right": stage("out/right", "raw é/{é} x"),
        "both": stage("both", "out"),
    }
    YAML().dump({"stages": stages}, root / "dvc.yaml")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "a b é"
    root.mkdir()
    write_graph(root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(root / ".site"))
    must(root, "dvc", "init", "-q", "--no-scm")
    return root


def write() -> list[str]:
    """Write the Snakefile; the names of its stages."""
    jobs = stale_jobs()
    DONE.mkdir(parents=True, exist_ok=True)
    SNAKEFILE.write_text(snakefile(jobs, PARAMS, gpus=0), encoding="utf-8")
    return [job.stage for job in jobs]


def test_the_stale_stages_run_and_dvc_takes_their_outputs(project: Path) -> None:
    names = write()
    assert (names[0], {*names[1:3]}, names[3]) == ("raw", {"left", "right"}, "both")
    must(project, *RUN)
    assert (project / "both/{é} x").read_text(encoding="utf-8") == "x\n"
    must(project, "bash", "-c", RECORD)
    assert "up to date" in must(project, "dvc", "status")
    assert write() == []
    (project / "out/left/{é} x").write_text("edited", encoding="utf-8")
    assert write() == ["left", "both"], "what changed, and what reads it"


def test_a_failure_stops_its_descendants_only_and_the_rest_can_be_recorded(project: Path) -> None:
    write_graph(project, left="false")
    write()
    status, output = call(project, *RUN)
    assert status != 0
    assert "Error in rule left" in output
    assert {path.name for path in DONE.iterdir()} == {"raw", "right"}
    must(project, "bash", "-c", RECORD)
    assert set(re.findall(r"^(\w+):$", must(project, "dvc", "status"), re.MULTILINE)) == {"left", "both"}


def test_what_finished_is_not_forgotten(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtbert.workflow.snakemake.load_params", lambda: PARAMS)
    main()
    must(project, *RUN, "left")
    with pytest.raises(
        MtbertError, match=r"done: stages finished that are not recorded in DVC, such as left; record them: `ls "
    ):
        main()
    must(project, "bash", "-c", RECORD)
    main()
    assert "name: 'left'" not in SNAKEFILE.read_text(encoding="utf-8")
    assert "name: 'both'" in SNAKEFILE.read_text(encoding="utf-8")


def test_dvc_s_error_is_one_line(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages: {plan: {cmd: 'false', outs: [a]}}", encoding="utf-8")
    with pytest.raises(
        MtbertError, match=r"DVC: failed to reproduce 'plan'; `dvc repro plan && dvc status` must work first"
    ):
        stale_jobs()


def rule(params: Params, gpus: int, stage: str = "train@baseline") -> str:
    job = Job(stage, f"python -m stages.{stage.replace('@', ' ')}", [])
    _, _, text = snakefile([job], params, gpus).split("\n\n\n")
    return text


@pytest.mark.parametrize(
    ("compute", "resources", "gpus", "lines"),
    [
        ({"threads": "auto"}, {}, 0, ["threads: 1", "resources:\n", "shell: 'python -m stages.train baseline'"]),
        ({"threads": 4}, {"memory_mb": 8000, "minutes": 90}, 0, ["threads: 4", "resources: mem_mb=8000, runtime=90"]),
        ({"device": "auto"}, {}, 2, ["resources: gpu=1", "shell: 'python -m mtbert.workflow.gpu 1 python -m stages.train b"]),
        ({"device": "cuda"}, {"gpus": 4}, 0, ["resources: gpu=4"]),
        ({"device": "cuda"}, {"gpus": 0}, 2, ["resources:\n"]),
        ({"device": "cpu"}, {}, 2, ["resources:\n"]),
    ],
)  # fmt: skip
def test_a_rule_has_the_resources_of_its_stage(
    compute: dict[str, object], resources: dict[str, int], gpus: int, lines: list[str]
) -> None:
    changes = {"compute": PARAMS.compute.model_copy(update=compute), "workflow": Workflow(train=Resources(**resources))}
    params = PARAMS.model_copy(update=changes)
    assert all(line in rule(params, gpus) for line in lines)
    assert "localrule: False" in rule(params, gpus)
    for stage in ("fetch", "convert@baseline", "table@table1"):
        assert "localrule: True" in rule(params, gpus, stage)
        assert "resources:\n" in rule(params, gpus, stage)


def test_a_run_waits_for_the_run_that_its_adapter_starts_from() -> None:
    runs = PARAMS.runs | {"start": PARAMS.runs["best_performance"]}
    adapter = runs["dora_r8"].adapter
    assert adapter is not None
    started = runs["dora_r8"].model_copy(update={"adapter": adapter.model_copy(update={"start_from": "start"})})
    jobs = [Job(f"train@{name}", "train", ["convert"]) for name in ("start", "dora_r8", "dora_r4")]
    text = snakefile(jobs, PARAMS.model_copy(update={"runs": runs | {"dora_r8": started}}), gpus=0)
    inputs = dict(re.findall(r"name: 'train@(\w+)'\n    input: (.*)", text))
    convert, start = f"'{DONE}/convert'", f"'{DONE}/train@start'"
    assert inputs == {"start": convert, "dora_r8": f"{convert}, {start}", "dora_r4": convert}


def test_resources_are_set_for_the_stages_of_dvc_yaml() -> None:
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert set(Workflow.model_fields) == set(stages) - {"plan"}


def test_the_guide_names_these_commands() -> None:
    guide = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    assert guide.count(RECORD) == 2
    assert f"snakemake --snakefile {SNAKEFILE} --cores all --keep-going\n{RECORD}\n" in guide


def test_no_stage_reads_the_resources() -> None:
    changed = PARAMS.model_copy(update={"workflow": Workflow(train=Resources(gpus=4))})
    assert settings_of_stages(changed) == settings_of_stages(PARAMS)
