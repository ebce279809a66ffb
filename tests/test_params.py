"""params.yaml: the shipped file tells the paper's runs, and every kind of fault is told by its key."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from mtbert.errors import MtbertError
from mtbert.params import Params, load_params

DELETE = object()
KEPT = {"baseline", "best_performance", "concat_u_v", "dora_r4", "dora_r8"}  # runs that tests of a changed file need
Edit = Callable[..., str]


@pytest.fixture(scope="module")
def shipped(root: Path) -> Params:
    return load_params(root / "params.yaml")


@pytest.fixture(scope="module")
def tree(root: Path) -> dict[str, Any]:
    """The shipped file as plain values, nothing inherited."""
    return json.loads(json.dumps(YAML(typ="safe").load(root / "params.yaml")))


@pytest.fixture
def load(tmp_path: Path, tree: dict[str, Any]) -> Callable[..., Params]:
    """load({dotted key: value, ...}): the shipped settings with these changed, in a file of few runs, nothing inherited."""

    def changed(changes: dict[str, Any]) -> Params:
        named = KEPT | {key.split(".")[1] for key in changes if key.startswith("runs.")}
        edited = copy.deepcopy({**tree, "runs": {name: tree["runs"][name] for name in tree["runs"] if name in named}})
        for key, value in changes.items():
            *parents, last = key.split(".")
            node = edited
            for parent in parents:
                node = node[parent]
            if value is DELETE:
                del node[last]
            else:
                node[last] = value
        path = tmp_path / "params.yaml"
        path.write_text(json.dumps(edited), encoding="utf-8")
        return load_params(path)

    return changed


@pytest.fixture
def fault(tmp_path: Path, load: Callable[..., Params]) -> Edit:
    """The error's lines for these changes, without the file's path, which stands before each."""

    def told(changes: dict[str, Any]) -> str:
        with pytest.raises(MtbertError) as caught:
            load(changes)
        lines = str(caught.value).splitlines()
        prefix = f"{tmp_path / 'params.yaml'}: "
        assert all(line.startswith(prefix) for line in lines), lines
        return "\n".join(line.removeprefix(prefix) for line in lines)

    return told


# ---- the shipped file


RUNS = [
    "baseline",
    "key_update_1",
    "key_update_2",
    "key_update_3",
    "best_performance",
    "concat_u_v",
    "concat_sum_diff",
    "sampler_sequential",
    "sampler_round_robin",
    "sampler_proportional",
    "sampler_balanced",
    "dora_r4",
    "dora_r8",
    "dora_r16",
    "dora_r32",
]
# Run: predecessor, and all that may differ from it.
DELTAS: dict[str, tuple[str, dict[str, Any]]] = {
    "key_update_1": (
        "baseline",
        {"tasks": ["sst", "quora", "sts"], "quora": {"objective": "linear", "features": ["u", "v", "|u-v|"]}},
    ),
    "key_update_2": ("key_update_1", {"sampler": "square_root"}),
    "key_update_3": ("key_update_2", {"pooling": "mean"}),
    "best_performance": (
        "key_update_3",
        {
            "encoding": "both",
            "quora": {"objective": "linear", "features": ["u", "v", "c"]},
            "sts": {"objective": "mse", "features": ["u", "v", "c"], "clamp": True},
        },
    ),
    "concat_u_v": (
        "best_performance",
        {
            "encoding": "bi",
            "quora": {"objective": "linear", "features": ["u", "v"]},
            "sts": {"objective": "mse", "features": ["u", "v"], "clamp": True},
        },
    ),
    "concat_sum_diff": (
        "best_performance",
        {
            "encoding": "bi",
            "quora": {"objective": "linear", "features": ["|u+v|", "|u-v|"]},
            "sts": {"objective": "mse", "features": ["|u+v|", "|u-v|"], "clamp": True},
        },
    ),
    "sampler_sequential": ("best_performance", {"sampler": "sequential"}),
    "sampler_round_robin": ("best_performance", {"sampler": "round_robin"}),
    "sampler_proportional": ("best_performance", {"sampler": "proportional"}),
    "sampler_balanced": ("best_performance", {"sampler": "balanced"}),
}


def test_the_shipped_runs(shipped: Params) -> None:
    assert list(shipped.runs) == RUNS
    assert shipped.run("baseline").tasks == ["sst"]
    assert shipped.run("baseline").pooling == "cls"
    assert {name for name, run in shipped.runs.items() if run.adapter} == set(RUNS[-4:])


@pytest.mark.parametrize("name", DELTAS)
def test_a_run_is_its_predecessor_plus_the_delta(shipped: Params, name: str) -> None:
    predecessor, delta = DELTAS[name]
    before, after = (shipped.run(run).model_dump() for run in (predecessor, name))
    assert after == before | delta
    assert all(before[key] != value for key, value in delta.items()), "each part of the delta is a change"


@pytest.mark.parametrize("rank", [4, 8, 16, 32])
def test_the_dora_runs_are_the_best_run_with_an_adapter(shipped: Params, rank: int) -> None:
    best, dora = shipped.run("best_performance").model_dump(), shipped.run(f"dora_r{rank}").model_dump()
    adapter = dora.pop("adapter")
    assert best.pop("adapter") is None
    assert {key for key in best if best[key] != dora[key]} <= {"learning_rate"}
    others = shipped.run("dora_r4").model_dump()["adapter"]
    assert adapter == others | {"rank": rank, "alpha": rank}
    assert (adapter["start_from"], adapter["train_rest"]) == ("pretrained", True)


def test_dvc_yaml_lists_the_same_runs(shipped: Params, root: Path) -> None:
    stages = YAML(typ="safe").load(root / "dvc.yaml")["stages"]
    adapters = [name for name, run in shipped.runs.items() if run.adapter]
    starts = {name: f"converted/{name}" if run.adapter else "pretrained" for name, run in shipped.runs.items()}
    assert stages["train"]["foreach"] == starts
    assert stages["evaluate"]["foreach"] == starts
    assert stages["convert"]["foreach"] == {name: f"${{runs.{name}.adapter.start_from}}" for name in adapters}


def test_loading_changes_nothing_on_the_way(shipped: Params, tree: dict[str, Any]) -> None:
    assert shipped.model_dump() == tree


# ---- faults


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("encodr", "unknown key encodr; did you mean 'encoder'?"),
        ("zzz", "unknown key zzz; valid: data, prepare, encoder, compute, runs, report"),
        ("data.sorce", "unknown key data.sorce; did you mean 'source'?"),
        ("data.sample.sede", "unknown key data.sample.sede; did you mean 'seed'?"),
        ("data.sample.sizes.sts2", "unknown key data.sample.sizes.sts2; did you mean 'sts'?"),
        ("data.sample.sizes.sts.trian", "unknown key data.sample.sizes.sts.trian; did you mean 'train'?"),
        ("prepare.leakages", "unknown key prepare.leakages; did you mean 'leakage'?"),
        ("encoder.random.layer", "unknown key encoder.random.layer; did you mean 'layers'?"),
        ("compute.thread", "unknown key compute.thread; did you mean 'threads'?"),
        ("report.folders", "unknown key report.folders; did you mean 'folder'?"),
        ("runs.baseline.poling", "unknown key runs.baseline.poling; did you mean 'pooling'?"),
        ("runs.baseline.sts.margins", "unknown key runs.baseline.sts.margins; did you mean 'margin'?"),
        ("runs.concat_u_v.sts.clmap", "unknown key runs.concat_u_v.sts.clmap; did you mean 'clamp'?"),
        ("runs.concat_u_v.quora.feature", "unknown key runs.concat_u_v.quora.feature; did you mean 'features'?"),
        ("runs.baseline.quora.features", "unknown key runs.baseline.quora.features; valid: objective"),
        ("runs.dora_r4.adapter.ranks", "unknown key runs.dora_r4.adapter.ranks; did you mean 'rank'?"),
    ],
)
def test_an_unknown_key_at_each_level(fault: Edit, key: str, message: str) -> None:
    assert fault({key: 1}) == message


@pytest.mark.parametrize("place", ["", "data.", "runs.baseline.", "runs.baseline.sts."])
@pytest.mark.parametrize("word", ["float", "int", "mse", "cosine", "Dora"])
def test_an_unknown_key_called_like_an_inner_word(fault: Edit, place: str, word: str) -> None:
    assert fault({f"{place}{word}": 1}).startswith(f"unknown key {place}{word}; ")


@pytest.mark.parametrize(
    ("key", "beside"),
    [
        ("report", "data, prepare, encoder, compute, runs, report"),
        ("data.path", "source, path, sample"),
        ("data.sample.sizes.sst.dev", "train, dev, test"),
        ("encoder.random.heads", "seed, layers, hidden, heads, intermediate, positions"),
        ("runs.concat_u_v.sts.clamp", "objective, features, clamp"),
        ("runs.dora_r8.adapter.start_from", "method, rank, alpha, dropout, train_rest, norm_gradient, start_from"),
    ],
)
def test_a_missing_key(fault: Edit, key: str, beside: str) -> None:
    assert fault({key: DELETE}) == f"missing key {key}; add it (valid here: {beside})"


def test_a_missing_objective_is_named(fault: Edit) -> None:
    told = fault({"runs.concat_u_v.sts.objective": DELETE})
    assert told == "missing key runs.concat_u_v.sts.objective; add it (valid: cosine, linear, cosine_embedding, mse)"


def test_a_misspelt_objective_is_told_its_name(fault: Edit) -> None:
    told = fault({"runs.concat_u_v.sts.objective": DELETE, "runs.concat_u_v.sts.objektive": "mse"})
    assert told == "unknown key runs.concat_u_v.sts.objektive; did you mean 'objective'?"


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("data.sample.seed", "11711", ["data.sample.seed: ", "integer", "not '11711'"]),
        ("data.sample.seed", -1, ["data.sample.seed: ", "greater than or equal to 0", "not -1"]),
        ("data.sample.label_noise", 1.0, ["data.sample.label_noise: ", "less than 1", "not 1.0"]),
        ("data.sample.sizes.sst.train", 7, ["data.sample.sizes.sst.train: ", "greater than or equal to 8", "not 7"]),
        ("data.source", "samples", ["data.source: 'samples' is not valid; did you mean 'sample'?"]),
        ("data.path", "", ["data.path: ", "at least 1 character"]),
        ("data.path", None, ["data.path: ", "string", "not None"]),
        ("prepare.max_tokens", 513, ["prepare.max_tokens: ", "less than or equal to 512", "not 513"]),
        ("prepare.max_tokens", True, ["prepare.max_tokens: ", "integer", "not True"]),
        ("prepare.on_bad_row", "ignore", ["prepare.on_bad_row: 'ignore' is not valid; valid: error, drop"]),
        ("encoder.source", "hup", ["encoder.source: 'hup' is not valid; did you mean 'hub'?"]),
        ("compute.device", "gpu", ["compute.device: 'gpu' is not valid"]),
        ("compute.threads", 0, ["compute.threads: "]),
        ("compute.threads", "all", ["compute.threads: 'all' is not valid", "auto", "number"]),
        ("compute.cuda_graphs", "yes", ["compute.cuda_graphs: ", "boolean", "not 'yes'"]),
        ("compute.cuda_graphs", 1, ["compute.cuda_graphs: ", "boolean", "not 1"]),
        ("compute.checkpoint_seconds", -1, ["compute.checkpoint_seconds: ", "greater than or equal to 0", "not -1"]),
        ("runs.baseline.tasks", [], ["runs.baseline.tasks: ", "at least 1 item"]),
        ("runs.baseline.tasks", ["sst", "sst"], ["runs.baseline: tasks names a task twice"]),
        ("runs.baseline.tasks", ["stss"], ["runs.baseline.tasks.0: 'stss' is not valid; did you mean 'sts'?"]),
        ("runs.baseline.tasks", "sst", ["runs.baseline.tasks: ", "list", "not 'sst'"]),
        ("runs.baseline.pooling", "average", ["runs.baseline.pooling: 'average' is not valid; valid: cls, mean, max"]),
        (
            "runs.baseline.sampler",
            "sqare_root",
            ["runs.baseline.sampler: 'sqare_root' is not valid", "did you mean 'square_root'? or a number"],
        ),
        ("runs.baseline.sampler", -0.5, ["runs.baseline.sampler: "]),
        (
            "runs.baseline.epoch_end",
            "deplete",
            ["runs.baseline.epoch_end: 'deplete' is not valid", "did you mean 'depletion'? or a number"],
        ),
        ("runs.baseline.epoch_end", 0, ["runs.baseline.epoch_end: "]),
        ("runs.baseline.epochs", 0, ["runs.baseline.epochs: ", "greater than or equal to 1", "not 0"]),
        ("runs.baseline.epochs", 2.5, ["runs.baseline.epochs: ", "integer", "not 2.5"]),
        ("runs.baseline.batch_size", "8", ["runs.baseline.batch_size: ", "integer", "not '8'"]),
        ("runs.baseline.learning_rate", 0, ["runs.baseline.learning_rate: ", "greater than 0", "not 0"]),
        ("runs.baseline.learning_rate", "1e-5", ["runs.baseline.learning_rate: ", "number", "not '1e-5'"]),
        ("runs.baseline.head_dropout", 1, ["runs.baseline.head_dropout: ", "less than 1", "not 1"]),
        ("runs.baseline.seed", 2**32, ["runs.baseline.seed: ", "less than 4294967296"]),
        (
            "runs.baseline.quora",
            {"objective": "linaer", "features": ["u"]},
            ["runs.baseline.quora.objective: 'linaer' is not valid", "did you mean 'linear'?"],
        ),
        ("runs.baseline.sts.margin", 2, ["runs.baseline.sts.margin: ", "less than or equal to 1", "not 2"]),
        ("runs.baseline.sts.threshold", 0, ["runs.baseline.sts.threshold: ", "greater than 0", "not 0"]),
        ("runs.concat_u_v.sts.clamp", "yes", ["runs.concat_u_v.sts.clamp: ", "boolean", "not 'yes'"]),
        ("runs.concat_u_v.sts.features", ["u", "|v-u|"], ["runs.concat_u_v.sts.features.1: '|v-u|' is not valid"]),
        ("runs.concat_u_v.sts.features", [], ["runs.concat_u_v.sts.features: ", "at least 1 item"]),
        ("runs.dora_r4.adapter.rank", 0, ["runs.dora_r4.adapter.rank: ", "greater than or equal to 1", "not 0"]),
        ("runs.dora_r4.adapter.alpha", 0, ["runs.dora_r4.adapter.alpha: ", "greater than 0"]),
        (
            "runs.dora_r4.adapter.method",
            "lora",
            ["runs.dora_r4.adapter.method: 'lora' is not valid; did you mean 'dora'?"],
        ),
        (
            "runs.dora_r4.adapter.norm_gradient",
            "detach",
            ["adapter.norm_gradient: 'detach' is not valid; did you mean 'detached'?"],
        ),
        ("runs.dora_r4.adapter", "dora", ["runs.dora_r4.adapter: ", "not 'dora'"]),
        ("runs.baseline", None, ["runs.baseline: ", "not None"]),
        ("runs", {}, ["runs: ", "at least 1"]),
        ("runs", None, ["runs: ", "not None"]),
        ("prepare", [], ["prepare: ", "not []"]),
    ],
)
def test_a_mistyped_or_out_of_range_value(fault: Edit, key: str, value: Any, parts: list[str]) -> None:
    told = fault({key: value})
    assert "\n" not in told, "one fault, one line"
    for part in parts:
        assert part in told


# Key, values at the edge of what is valid, and the nearest beyond it.
LIMITS: list[tuple[str, list[Any], list[Any]]] = [
    *((f"data.sample.sizes.sst.{split}", [8], [7]) for split in ("train", "dev", "test")),
    *((f"{place}.seed", [0, 2**32 - 1], [-1, 2**32]) for place in ("data.sample", "encoder.random", "runs.baseline")),
    ("data.sample.label_noise", [0, 0.999], [-0.001, 1]),
    ("data.path", ["a"], [""]),
    ("prepare.max_tokens", [8, 512], [7, 513]),
    *((f"encoder.random.{key}", [1], [0]) for key in ("layers", "heads", "intermediate")),
    ("encoder.random.hidden", [2], [0]),
    ("encoder.random.positions", [8], [7]),
    ("compute.threads", [1], [0]),
    ("compute.checkpoint_seconds", [0], [-0.001]),
    ("runs", [{"only": None}], [{}]),
    ("runs.baseline.tasks", [["sts"]], [[]]),
    ("runs.concat_u_v.quora.features", [["u"]], [[]]),
    ("runs.concat_u_v.sts.features", [["v"]], [[]]),
    ("runs.baseline.sts.margin", [-1, 1], [-1.001, 1.001]),
    ("runs.baseline.sts.threshold", [0.001, 5], [0, 5.001]),
    ("runs.baseline.sampler", [0], [-0.001]),
    *((f"runs.baseline.{key}", [1], [0]) for key in ("epoch_end", "epochs", "batch_size")),
    ("runs.baseline.learning_rate", [1e-9], [0]),
    *((f"runs.baseline.{key}", [0, 0.999], [-0.001, 1]) for key in ("encoder_dropout", "head_dropout")),
    ("runs.dora_r4.adapter.rank", [1], [0]),
    ("runs.dora_r4.adapter.alpha", [1e-9], [0]),
    ("runs.dora_r4.adapter.dropout", [0, 0.999], [-0.001, 1]),
    ("report.folder", ["a"], [""]),
]


@pytest.mark.parametrize(("key", "inside", "beyond"), LIMITS, ids=[key for key, *_ in LIMITS])
def test_limits_are_where_they_should_be(
    load: Callable[..., Params], fault: Edit, tree: dict[str, Any], key: str, inside: list[Any], beyond: list[Any]
) -> None:
    for value in inside:
        load({key: {"only": tree["runs"]["baseline"]} if key == "runs" else value})
    for value in beyond:
        assert fault({key: value}).startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("data.source", ["sample", "cs224n"]),
        ("prepare.on_bad_row", ["error", "drop"]),
        ("prepare.leakage", ["keep", "drop"]),
        ("prepare.preprocess", ["course", "none"]),
        ("encoder.source", ["minilm", "random"]),
        ("compute.device", ["auto", "cpu", "cuda"]),
        ("compute.precision", ["auto", "fp32", "bf16"]),
        ("compute.threads", ["auto"]),
        ("compute.cuda_graphs", [True, False]),
        ("runs.baseline.pooling", ["cls", "mean", "max"]),
        ("runs.baseline.sampler", ["sequential", "round_robin", "proportional", "square_root", "balanced"]),
        ("runs.baseline.epoch_end", ["depletion"]),
        ("runs.baseline.tasks", [["sst", "quora", "sts"]]),
        ("runs.concat_u_v.sts.features", [["u", "v", "|u-v|", "|u+v|"]]),
        ("runs.dora_r4.adapter.norm_gradient", ["exact", "detached"]),
    ],
)
def test_every_word_is_accepted(load: Callable[..., Params], key: str, words: list[Any]) -> None:
    for word in words:
        node: Any = load({key: word}).model_dump()
        for part in key.split("."):
            node = node[part]
        assert node == word


def test_each_encoding_with_the_features_that_need_it(load: Callable[..., Params]) -> None:
    for encoding, features in (("bi", ["u", "v"]), ("cross", ["c"]), ("both", ["u", "c"])):
        run = "runs.sampler_balanced"
        loaded = load({f"{run}.encoding": encoding, f"{run}.quora.features": features, f"{run}.sts.features": features})
        assert loaded.run("sampler_balanced").encoding == encoding


@pytest.mark.parametrize("number", [".inf", ".nan"])
@pytest.mark.parametrize(
    ("key", "before"),
    [
        ("compute.checkpoint_seconds", r"checkpoint_seconds: \d+"),
        ("runs.baseline.sampler", r"sampler: sequential"),
        ("runs.baseline.learning_rate", r"learning_rate: \S+"),
        ("runs.dora_r4.adapter.alpha", r"alpha: 4 "),
    ],
)
def test_no_setting_is_infinite(root: Path, tmp_path: Path, key: str, before: str, number: str) -> None:
    with pytest.raises(MtbertError, match=rf"{re.escape(key)}: .*{number.lstrip('.')}"):
        load_params(edited(root, tmp_path, before, f"{before.partition(':')[0]}: {number} "))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"runs.baseline.encoding": "cross"},
            "runs.baseline: quora uses u, v, which needs encoding: bi, but encoding is cross",
        ),
        (
            {"runs.best_performance.encoding": "bi"},
            "runs.best_performance: quora uses u, v, c, which needs encoding: both, but encoding is bi",
        ),
        (
            {"runs.concat_u_v.quora.features": ["c"]},
            "runs.concat_u_v: quora uses c, which needs encoding: cross, but encoding is bi",
        ),
        (
            {"runs.concat_u_v.encoding": "both"},
            "runs.concat_u_v: encoding is both, but every feature is bi-encoded; say encoding: bi or cross",
        ),
        (
            {"runs.best_performance.quora.features": ["c"], "runs.best_performance.sts.features": ["c"]},
            "runs.best_performance: encoding is both, but every feature is cross-encoded; say encoding: bi or cross",
        ),
        ({"runs.concat_u_v.sts.features": ["u", "v", "u"]}, "runs.concat_u_v: sts.features names a feature twice"),
        ({"encoder.random.heads": 5}, "encoder.random: hidden (32) must be a multiple of heads (5)"),
        (
            {"encoder.source": "hub"},
            "encoder: source is hub, so encoder.name must be a hub name, such as google-bert/bert-base-uncased",
        ),
        (
            {"encoder.source": "hub", "encoder.name": "a/b", "encoder.revision": "main"},
            "encoder: source is hub, so encoder.revision must be a commit of 40 hex digits (branches move)",
        ),
        (
            {"encoder.source": "local"},
            "encoder: source is local, so encoder.path must name a folder with config.json, "
            "tokenizer.json, model.safetensors",
        ),
        (
            {"encoder.source": "local", "encoder.path": "mine"},
            "encoder: source is local, so encoder.sha256 must hold the checksum of its model.safetensors "
            "(`sha256sum FILE`): weights that change under the same path must not pass for the same encoder",
        ),
        (
            {"encoder.name": "google-bert/bert-base-uncased"},
            "encoder: source is minilm, which has no use for encoder.name; set it to null, or encoder.source to hub",
        ),
        (
            {"encoder.source": "random", "encoder.revision": "0" * 40},
            "encoder: source is random, which has no use for encoder.revision; set it to null, or encoder.source to hub",
        ),
        (
            {"encoder.source": "local", "encoder.path": "mine", "encoder.sha256": "0" * 64, "encoder.name": "a/b"},
            "encoder: source is local, which has no use for encoder.name; set it to null, or encoder.source to hub",
        ),
        (
            {"encoder.path": "mine"},
            "encoder: source is minilm, which has no use for encoder.path; set it to null, or encoder.source to local",
        ),
        (
            {
                "encoder.source": "hub",
                "encoder.name": "a/b",
                "encoder.revision": "0" * 40,
                "encoder.path": "mine",
            },
            "encoder: source is hub, which has no use for encoder.path; set it to null, or encoder.source to local",
        ),
        (
            {"encoder.source": "random", "encoder.sha256": "0" * 64},
            "encoder: source is random, which has no use for encoder.sha256; set it to null, "
            "or encoder.source to minilm or hub or local",
        ),
        ({"encoder.sha256": "abc"}, "encoder: sha256 must be 64 hex digits, or null"),
        (
            {"runs.dora_r4.adapter.start_from": "best_perfomance"},
            "runs.dora_r4.adapter.start_from: no run is called 'best_perfomance'; did you mean 'best_performance'?",
        ),
        (
            {"runs.dora_r4.adapter.start_from": "dora_r4"},
            "runs.dora_r4.adapter.start_from: 'dora_r4' must be a fully fine-tuned run; DoRA starts from plain weights",
        ),
        (
            {"runs.dora_r4.adapter.start_from": "dora_r8"},
            "runs.dora_r4.adapter.start_from: 'dora_r8' must be a fully fine-tuned run; DoRA starts from plain weights",
        ),
        (
            {"runs.dora_r4.adapter.start_from": "concat_u_v"},
            "runs.dora_r4.adapter.start_from: 'concat_u_v' has other heads, pooling or encoding than dora_r4",
        ),
    ],
)
def test_a_contradiction(fault: Edit, changes: dict[str, Any], message: str) -> None:
    assert fault(changes) == message


@pytest.mark.parametrize("name", ["Baseline", "my-run", "a.b", "../up", "1st", "", "pretrained", "converted", "a" * 65])
def test_a_bad_name_of_a_run(load: Callable[..., Params], tree: dict[str, Any], name: str) -> None:
    with pytest.raises(MtbertError, match=rf"runs\.{re.escape(name)}: a run's name is lower-case letters"):
        load({"runs": {**tree["runs"], name: tree["runs"]["baseline"]}})


def test_a_run_may_have_any_good_name(load: Callable[..., Params], tree: dict[str, Any]) -> None:
    names = ["mine_2", "a" * 64, "mse", "linear"]
    loaded = load({"runs": {**tree["runs"], **dict.fromkeys(names, tree["runs"]["baseline"])}})
    assert [*loaded.runs][-4:] == names


@pytest.mark.parametrize("name", ["mse", "linear", "float", "auto", "adapter"])
def test_a_fault_in_a_run_called_like_an_inner_word(fault: Edit, tree: dict[str, Any], name: str) -> None:
    runs = {name: {**tree["runs"]["baseline"], "epoch": 1}}
    assert fault({"runs": runs}) == f"unknown key runs.{name}.epoch; did you mean 'epochs'?"


def test_numbers_where_words_or_numbers_fit(load: Callable[..., Params]) -> None:
    loaded = load({"runs.baseline.sampler": 0.25, "runs.baseline.epoch_end": 7, "compute.threads": 3})
    assert (loaded.run("baseline").sampler, loaded.run("baseline").epoch_end) == (0.25, 7)
    assert loaded.compute.threads == 3
    assert load({"runs.baseline.sampler": 1}).run("baseline").sampler == 1
    assert load({"runs.dora_r4.adapter.start_from": "best_performance"}).run("dora_r4").adapter is not None
    assert load({"encoder.source": "hub", "encoder.name": "a/b", "encoder.revision": "0" * 40}).encoder.source == "hub"


def test_a_checksum_pins_any_published_encoder(load: Callable[..., Params]) -> None:
    hub = {"encoder.source": "hub", "encoder.name": "a/b", "encoder.revision": "0" * 40}
    for source in ({}, hub, {"encoder.source": "local", "encoder.path": "mine"}):
        assert load({**source, "encoder.sha256": "0" * 64}).encoder.sha256 == "0" * 64


def test_the_smallest_random_encoder(load: Callable[..., Params]) -> None:
    assert load({"encoder.random.hidden": 1, "encoder.random.heads": 1}).encoder.random.hidden == 1


def test_a_hub_s_encoder_needs_a_revision(fault: Edit) -> None:
    assert "encoder.revision must be a commit" in fault({"encoder.source": "hub", "encoder.name": "a/b"})


def test_faults_as_a_user_reads_them(fault: Edit) -> None:
    assert fault({"prepare.on_bad_row": "ignore"}) == "prepare.on_bad_row: 'ignore' is not valid; valid: error, drop"
    told = "prepare.max_tokens: input should be less than or equal to 512, not 513"
    assert fault({"prepare.max_tokens": 513}) == told


@pytest.mark.parametrize(
    "keys",
    [("data.sample.seed", "encoder.random.seed"), ("runs.baseline.epochs", "runs.baseline.batch_size")],
)
def test_the_same_fault_of_two_keys_is_told_twice(fault: Edit, keys: tuple[str, str]) -> None:
    told = fault(dict.fromkeys(keys, -1)).splitlines()
    assert [line.partition(": ")[0] for line in told] == list(keys)


@pytest.mark.parametrize(("runs", "heirs"), [(2, "1 more run"), (3, "2 more runs")])
def test_heirs_are_counted(fault: Edit, runs: int, heirs: str) -> None:
    names = ["dora_r4", "dora_r8", "dora_r16"][:runs]
    told = fault({f"runs.{name}.adapter.rank": 0 for name in names})
    assert told.endswith(f"not 0 (inherited by {heirs})")


def test_params_yaml_of_the_folder_one_is_in_is_the_default(
    root: Path, shipped: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    assert load_params() == shipped


def test_all_faults_are_told_at_once(fault: Edit) -> None:
    told = fault({"data.sorce": 1, "runs.baseline.epochs": 0, "report.folder": DELETE})
    assert len(told.splitlines()) == 3
    for key in ("data.sorce", "runs.baseline.epochs", "report.folder"):
        assert key in told


def edited(root: Path, tmp_path: Path, before: str, after: str) -> Path:
    text = (root / "params.yaml").read_text(encoding="utf-8")
    changed, count = re.subn(before, after, text, count=1, flags=re.MULTILINE)
    assert count == 1
    (tmp_path / "params.yaml").write_text(changed, encoding="utf-8")
    return tmp_path / "params.yaml"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (r"^    epochs: \d+", "    epochs: 0", r"runs\.baseline\.epochs: .* not 0 \(inherited by 14 more runs\)"),
        ("^    epochs:", "    epoch:", r"runs\.baseline\.epochs; add it .*\(inherited by 14 more runs\)"),
        ("^    pooling: mean$", "    pooling: men", r"key_update_3\.pooling: 'men' .*\(inherited by 11 more runs\)"),
        ("method: dora", "method: dra", r"runs\.dora_r4\.adapter\.method: 'dra' .*\(inherited by 3 more runs\)"),
        ("rank: 8,", "rank: 0,", r"runs\.dora_r8\.adapter\.rank: .* not 0$"),
        (
            "^    encoding: both$",
            "    encoding: bi",
            r"best_performance: quora uses u, v, c,.*\(inherited by 8 more runs\)",
        ),
    ],
)
def test_an_inherited_fault_is_told_once(root: Path, tmp_path: Path, before: str, after: str, message: str) -> None:
    with pytest.raises(MtbertError) as caught:
        load_params(edited(root, tmp_path, before, after))
    lines = str(caught.value).splitlines()
    assert len([line for line in lines if re.search(message, line)]) == 1, lines
    assert len(lines) <= 2


# ---- files that are no params.yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"data:\n  a: [1, 2\nrest: 1\n", r"params\.yaml:3:\d+: not valid YAML: "),
        (b"data:\n\tpath: x\n", r"params\.yaml:2:1: not valid YAML: .*"),
        (b"a: 1\nb: 2\na: 3\n", r"params\.yaml:3:1: not valid YAML: .*duplicate key"),
        (b"a: *nowhere\n", r"params\.yaml:1:4: not valid YAML: .*nowhere"),
        (b"a: \x07\n", r"params\.yaml: not valid YAML: unacceptable character #x0007"),
        (b"a: \xff\n", r"params\.yaml: not UTF-8 at byte 3"),
        (b"", r"params\.yaml: expected sections \(data, prepare, .*\), found NoneType"),
        (b"- data\n", r"params\.yaml: expected sections .*found "),
        (b"just text\n", r"params\.yaml: expected sections .*found str"),
        (b"1: 2\n", r"params\.yaml: "),
    ],
)
def test_a_file_that_is_not_params(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "params.yaml").write_bytes(text)
    with pytest.raises(MtbertError, match=message):
        load_params(tmp_path / "params.yaml")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MtbertError, match=r"params\.yaml: not found; run from the project's root"):
        load_params(tmp_path / "params.yaml")


def test_an_unknown_run(shipped: Params) -> None:
    with pytest.raises(MtbertError, match=r"no run is called 'dora_16'; did you mean 'dora_r16'\?"):
        shipped.run("dora_16")
    with pytest.raises(MtbertError, match=r"no run is called 'qqq'; valid: baseline, .*, dora_r32"):
        shipped.run("qqq")


def test_nothing_can_be_changed_after_loading(shipped: Params) -> None:
    with pytest.raises(ValueError, match="frozen"):
        shipped.run("baseline").epochs = 1  # type: ignore[misc]
