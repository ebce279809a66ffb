"""params.yaml: the shipped file has the paper's runs, and every kind of fault is reported with its key."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from ruamel.yaml import YAML

from mtbert.errors import MtbertError
from mtbert.params import VIEWS, Params, load_params

DELETE = object()
KEPT = {"baseline", "best_performance", "concat_u_v", "dora_r4", "dora_r8"}  # used by tests that change the file
TOP = "profile, profiles, data, prepare, encoder, compute, workflow, tasks, tables, figures, seeds, runs"
Load = Callable[..., Params]
Fault = Callable[..., str]


@pytest.fixture(scope="module")
def shipped(root: Path) -> Params:
    return load_params(root / "params.yaml")


@pytest.fixture(scope="module")
def written(root: Path) -> dict[str, Any]:
    """The shipped file as plain values."""
    tree: dict[str, Any] = json.loads(json.dumps(YAML(typ="safe", pure=True).load(root / "params.yaml")))
    return tree


@pytest.fixture(scope="module")
def flat(shipped: Params) -> dict[str, Any]:
    """The shipped settings of a few runs without inheritance, and a profile that has only a budget."""
    tree = shipped.model_dump()
    tree |= {"profile": "only", "profiles": {"only": {"budget": tree.pop("budget")}}}
    tree["runs"] = {name: run for name, run in tree["runs"].items() if name in KEPT}
    for kind in ("tables", "figures"):
        for view, rows in tree[kind].items():
            tree[kind][view] = {row: run for row, run in rows.items() if run in KEPT}
    return tree


@pytest.fixture
def load(tmp_path: Path, flat: dict[str, Any], written: dict[str, Any]) -> Load:
    """load({dotted key: value, ...}): the settings with these changed, in the shipped file if not `alone`."""

    def changed(changes: dict[str, Any], alone: bool = True) -> Params:
        edited = copy.deepcopy(flat if alone else written)
        for key, value in changes.items():
            *parents, last = key.split(".")
            node = edited
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
            if value is DELETE:
                del node[last]
        path = tmp_path / "params.yaml"
        path.write_text(json.dumps(edited), encoding="utf-8")
        with patch("mtbert.params.read_yaml", lambda _: edited):  # a YAML parser takes far longer
            return load_params(path)

    return changed


@pytest.fixture
def fault(tmp_path: Path, load: Load) -> Fault:
    """The error's lines for these changes, without the path in front of each."""

    def lines_of(changes: dict[str, Any], alone: bool = True) -> str:
        with pytest.raises(MtbertError) as caught:
            load(changes, alone)
        lines = str(caught.value).splitlines()
        prefix = f"{tmp_path / 'params.yaml'}: "
        assert all(line.startswith(prefix) for line in lines), lines
        return "\n".join(line.removeprefix(prefix) for line in lines)

    return lines_of


# ---- the shipped file


# Run: predecessor, and everything that differs from it.
DELTAS: dict[str, tuple[str, dict[str, Any]]] = {
    "key_update_1": (
        "baseline",
        {
            "tasks": ["sst", "quora", "sts"],
            "heads": {"quora": {"objective": "bce", "features": ["u", "v", "|u-v|"], "label_smoothing": 0.0}},
        },
    ),
    "key_update_2": ("key_update_1", {"sampler": "square_root"}),
    "key_update_3": ("key_update_2", {"pooling": "mean"}),
    "best_performance": (
        "key_update_3",
        {
            "encoding": "both",
            "heads": {
                "quora": {"objective": "bce", "features": ["u", "v", "c"], "label_smoothing": 0.0},
                "sts": {"objective": "mse", "features": ["u", "v", "c"], "clamp": True},
            },
        },
    ),
    **{
        name: (
            "best_performance",
            {
                "encoding": "bi",
                "heads": {
                    "quora": {"objective": "bce", "features": features, "label_smoothing": 0.0},
                    "sts": {"objective": "mse", "features": features, "clamp": True},
                },
            },
        )
        for name, features in (("concat_u_v", ["u", "v"]), ("concat_sum_diff", ["|u+v|", "|u-v|"]))
    },
    **{
        f"sampler_{sampler}": ("best_performance", {"sampler": sampler})
        for sampler in ("sequential", "round_robin", "proportional", "balanced")
    },
}
ADAPTED = [f"dora_r{rank}" for rank in (4, 8, 16, 32)]
PROFILES = ["sample", "course", "paper", "paper_minilm"]


def test_the_shipped_runs_and_profiles(shipped: Params, written: dict[str, Any]) -> None:
    assert list(written["profiles"]) == PROFILES
    assert list(shipped.runs) == ["baseline", *DELTAS, *ADAPTED]
    assert (shipped.runs["baseline"].tasks, shipped.runs["baseline"].pooling) == (["sst"], "cls")


@pytest.mark.parametrize("name", DELTAS)
def test_a_run_is_its_predecessor_plus_the_delta(shipped: Params, name: str) -> None:
    predecessor, delta = DELTAS[name]
    before, after = (shipped.runs[run].model_dump() for run in (predecessor, name))
    heads = {"heads": before["heads"] | delta.get("heads", {})}
    assert after == before | delta | heads
    assert all(before[key] != value for key, value in delta.items()), "each part of the delta is a change"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_loads_and_its_budget_lies_under_the_runs(
    root: Path, written: dict[str, Any], profile: str
) -> None:
    params = load_params(root / "params.yaml", profile)
    budget = params.budget
    assert (params.profile, budget.model_dump()) == (profile, written["profiles"][profile]["budget"])
    for section in ("data", "prepare", "encoder"):
        chosen, common = written["profiles"][profile].get(section, {}), written[section]
        assert getattr(params, section).model_dump(exclude_unset=True) == common | chosen
    best = params.runs["best_performance"].model_dump()
    for name, run in params.runs.items():
        assert (run.epochs, run.epoch_end, run.batch_size) == (budget.epochs, budget.epoch_end, budget.batch_size)
        assert run.learning_rate == (budget.rest_learning_rate if name in ADAPTED else budget.learning_rate)
        assert (run.adapter is not None) == (name in ADAPTED)
        if run.adapter:
            rank = int(name.removeprefix("dora_r"))
            assert run.model_dump(exclude={"adapter", "learning_rate"}) == {
                key: value for key, value in best.items() if key not in ("adapter", "learning_rate")
            }
            first = params.runs["dora_r4"].model_dump()["adapter"]
            assert run.adapter.model_dump() == first | {"rank": rank, "alpha": rank}
            assert run.adapter.learning_rate == budget.adapter_learning_rate
            assert (run.adapter.start_from, run.adapter.train_rest) == ("pretrained", True)


def test_an_unknown_profile(root: Path) -> None:
    with pytest.raises(MtbertError, match=r"profile: no profile is called 'corse'; did you mean 'course'\?"):
        load_params(root / "params.yaml", "corse")


def test_params_yaml_of_the_folder_one_is_in_is_the_default(
    root: Path, shipped: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    assert load_params() == shipped


def test_nothing_can_be_changed_after_loading(shipped: Params) -> None:
    with pytest.raises(ValueError, match="frozen"):
        shipped.runs["baseline"].epochs = 1


# ---- values that are valid


# Key, the extreme valid values, and the nearest invalid ones.
LIMITS: list[tuple[str, list[Any], list[Any]]] = [
    *((f"data.sample.sizes.sst.{split}", [8, 1_000_000], [7, 1_000_001]) for split in ("train", "dev", "test")),
    *((f"{place}.seed", [0, 2**32 - 1], [-1, 2**32]) for place in ("data.sample", "encoder.random", "runs.baseline")),
    ("data.sample.label_noise", [0, 0.999], [-0.001, 1]),
    ("data.path", ["a"], [""]),
    ("encoder.path", ["a"], [""]),
    ("prepare.max_tokens", [8, 512], [7, 513]),
    ("encoder.random.layers", [1, 128], [0, 129]),
    ("encoder.random.heads", [1], [0, 8193]),
    ("encoder.random.intermediate", [1, 32768], [0, 32769]),
    ("encoder.random.hidden", [2, 8192], [0, 8194]),
    ("encoder.random.positions", [8, 32768], [7, 32769]),
    ("compute.threads", [1, 1024], [0, 1025]),
    ("workflow.train.gpus", [0, 1024], [-1, 1025]),
    ("workflow.train.memory_mb", [1, 100_000_000], [0, 100_000_001]),
    ("workflow.train.minutes", [1, 1_000_000], [0, 1_000_001]),
    ("runs.baseline.tasks", [["sts"]], [[]]),
    ("runs.concat_u_v.heads.quora.features", [["u"]], [[]]),
    ("runs.concat_u_v.heads.sts.features", [["v"]], [[]]),
    ("runs.baseline.heads.sts.margin", [-1, 1], [-1.001, 1.001]),
    ("runs.baseline.heads.sts.threshold", [0.001, 5], [0, 5.001]),
    ("runs.baseline.sampler", [0, 0.25, 1], [-0.001]),
    *(
        (f"{place}.{key}", [1, most], [0, most + 1])
        for place in ("runs.baseline", "profiles.only.budget")
        for key, most in (("epoch_end", 10_000_000), ("epochs", 1000), ("batch_size", 65536))
    ),
    ("runs.baseline.learning_rate", [1e-9], [0]),
    *((f"profiles.only.budget.{kind}learning_rate", [1e-9], [0]) for kind in ("", "adapter_", "rest_")),
    *((f"runs.baseline.{key}", [0, 0.999], [-0.001, 1]) for key in ("encoder_dropout", "head_dropout")),
    ("runs.dora_r4.adapter.rank", [1, 4096], [0, 4097]),
    ("runs.dora_r4.adapter.alpha", [1e-9], [0]),
    ("runs.dora_r4.adapter.learning_rate", [1e-9], [0]),
    ("runs.dora_r4.adapter.dropout", [0, 0.999], [-0.001, 1]),
]


@pytest.mark.parametrize(("key", "inside", "beyond"), LIMITS, ids=[key for key, *_ in LIMITS])
def test_limits_are_where_they_should_be(
    load: Load, fault: Fault, key: str, inside: list[Any], beyond: list[Any]
) -> None:
    for value in inside:
        load({key: value})
    for value in beyond:
        assert fault({key: value}).startswith(f"{key}: ")


WORDS: list[tuple[str, list[Any]]] = [
    ("data.source", ["sample", "folder", "download"]),
    ("prepare.on_bad_row", ["error", "drop"]),
    ("prepare.leakage", ["keep", "drop"]),
    ("prepare.preprocess", ["course", "none"]),
    ("encoder.source", ["minilm", "local", "random"]),
    ("compute.device", ["auto", "cpu", "cuda"]),
    ("compute.precision", ["auto", "fp32", "bf16"]),
    ("compute.threads", ["auto"]),
    ("compute.cuda_graphs", ["auto", True, False]),
    ("runs.baseline.pooling", ["cls", "mean", "max"]),
    (
        "runs.baseline.sampler",
        ["sequential", "round_robin", "proportional", "square_root", "balanced", "annealed", "joint"],
    ),
    ("runs.baseline.epoch_end", ["depletion", "one_pass", {"tokens": "one_pass"}, {"tokens": 1}]),
    ("runs.baseline.tasks", [["sst", "quora", "sts"]]),
    ("runs.concat_u_v.heads.sts.features", [["u", "v", "|u-v|", "|u+v|"]]),
    ("runs.dora_r4.adapter.norm_gradient", ["exact", "detached"]),
    ("runs.dora_r4.adapter.start_from", ["pretrained", "best_performance"]),
]


@pytest.mark.parametrize(("key", "words"), WORDS, ids=[key for key, _ in WORDS])
def test_every_word_is_accepted(load: Load, key: str, words: list[Any]) -> None:
    for word in words:
        node: Any = load({key: word}).model_dump()
        for part in key.split("."):
            node = node[part]
        assert node == word


def test_each_encoding_with_the_features_that_need_it(load: Load) -> None:
    run = "runs.concat_u_v"
    for encoding, features in (("bi", ["u", "v"]), ("cross", ["c"]), ("both", ["u", "c"])):
        load(
            {
                f"{run}.encoding": encoding,
                f"{run}.heads.quora.features": features,
                f"{run}.heads.sts.features": features,
            }
        )


HUB = {"encoder.source": "hub", "encoder.name": "a/b", "encoder.revision": "0" * 40}


def test_a_checksum_pins_any_published_encoder(load: Load) -> None:
    for source in ({}, HUB, {"encoder.source": "local"}):
        assert load({**source, "encoder.sha256": "0" * 64}).encoder.sha256 == "0" * 64


# ---- faults


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("encodr", "unknown key encodr; did you mean 'encoder'?"),
        ("zzz", f"unknown key zzz; valid: {TOP}"),
        ("budget", "unknown key budget; each profile has one: profiles.NAME.budget"),
        ("profiles.only.encodr", "unknown key profiles.only.encodr; did you mean 'encoder'?"),
        (
            "profiles.only.runs",
            "unknown key profiles.only.runs; valid: data, prepare, encoder, compute, workflow, budget",
        ),
        ("profiles.only.encoder.nam", "unknown key profiles.only.encoder.nam; did you mean 'name'?"),
        ("profiles.only.budget.epoch", "unknown key profiles.only.budget.epoch; did you mean 'epochs'?"),
        ("data.sorce", "unknown key data.sorce; did you mean 'source'?"),
        ("data.sample.sede", "unknown key data.sample.sede; did you mean 'seed'?"),
        ("data.sample.sizes.sts2", "unknown key data.sample.sizes.sts2; did you mean 'sts'?"),
        ("data.sample.sizes.sts.trian", "unknown key data.sample.sizes.sts.trian; did you mean 'train'?"),
        ("prepare.leakages", "unknown key prepare.leakages; did you mean 'leakage'?"),
        ("encoder.random.layer", "unknown key encoder.random.layer; did you mean 'layers'?"),
        ("compute.thread", "unknown key compute.thread; did you mean 'threads'?"),
        ("workflow.trian", "unknown key workflow.trian; did you mean 'train'?"),
        ("workflow.train.gpu", "unknown key workflow.train.gpu; did you mean 'gpus'?"),
        ("runs.baseline.poling", "unknown key runs.baseline.poling; did you mean 'pooling'?"),
        ("runs.baseline.heads.sts.margins", "unknown key runs.baseline.heads.sts.margins; did you mean 'margin'?"),
        ("runs.concat_u_v.heads.sts.clmap", "unknown key runs.concat_u_v.heads.sts.clmap; did you mean 'clamp'?"),
        (
            "runs.concat_u_v.heads.quora.feature",
            "unknown key runs.concat_u_v.heads.quora.feature; did you mean 'features'?",
        ),
        (
            "runs.baseline.heads.quora.features",
            "unknown key runs.baseline.heads.quora.features; it belongs to another objective, remove it (valid here: objective)",
        ),
        ("runs.dora_r4.adapter.ranks", "unknown key runs.dora_r4.adapter.ranks; did you mean 'rank'?"),
        ("runs.baseline.form", "unknown key runs.baseline.form; did you mean 'from'?"),
    ],
)
def test_an_unknown_key_at_each_level(fault: Fault, key: str, message: str) -> None:
    value: Any = {} if key == "profiles.only.encodr" else 1
    assert fault({key: value}) == message


@pytest.mark.parametrize("place", ["", "data.", "runs.baseline.", "runs.baseline.heads.sts."])
@pytest.mark.parametrize("word", ["float", "int", "mse", "cosine", "Dora"])
def test_an_unknown_key_called_like_an_inner_word(fault: Fault, place: str, word: str) -> None:
    assert fault({f"{place}{word}": 1}).startswith(f"unknown key {place}{word}; ")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("profile", "missing key profile; add it (valid: only)"),
        ("profiles", "missing key profiles; add it, with at least one name below it"),
        ("runs", "missing key runs; add it, with at least one name below it"),
        ("tables", f"missing key tables; add it, or `tables: {{}}` for none (valid here: {TOP})"),
        ("seeds", f"missing key seeds; add it, or `seeds: {{}}` for none (valid here: {TOP})"),
        ("data", f"missing key data; add it (valid here: {TOP})"),
        ("data.path", "missing key data.path; add it (valid here: source, path, sample)"),
        ("data.sample.sizes.sst.dev", "missing key data.sample.sizes.sst.dev; add it (valid here: train, dev, test)"),
        (
            "encoder.random.heads",
            "missing key encoder.random.heads; add it "
            "(valid here: seed, layers, hidden, heads, intermediate, positions)",
        ),
        ("runs.baseline.pooling", "missing key runs.baseline.pooling; add it, or inherit it with `from: RUN`"),
        (
            "runs.concat_u_v.heads.sts.clamp",
            "missing key runs.concat_u_v.heads.sts.clamp; add it (valid here: objective, features, clamp)",
        ),
        (
            "runs.dora_r8.adapter.start_from",
            "missing key runs.dora_r8.adapter.start_from; add it (valid here: method, learning_rate, train_rest, "
            "start_from, rank, alpha, dropout, norm_gradient)",
        ),
        (
            "runs.concat_u_v.heads.sts.objective",
            "missing key runs.concat_u_v.heads.sts.objective; add it (valid: cross_entropy, corn, bce, cosine, mse, pearson, cosent, cosine_embedding, cosine_cosent)",
        ),
        (
            "profiles.only.budget.epochs",
            "missing key profiles.only.budget.epochs; add it (valid here: epochs, epoch_end, batch_size, "
            "learning_rate, adapter_learning_rate, rest_learning_rate)",
        ),
    ],
)
def test_a_missing_key(fault: Fault, key: str, message: str) -> None:
    assert fault({key: DELETE}) == message


def test_a_misspelt_objective_gets_a_suggestion(fault: Fault) -> None:
    lines = fault({"runs.concat_u_v.heads.sts.objective": DELETE, "runs.concat_u_v.heads.sts.objektive": "mse"})
    assert lines == "unknown key runs.concat_u_v.heads.sts.objektive; did you mean 'objective'?"


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("profile", ["only"], ["profile: no profile is called ['only']; did you mean 'only'?"]),
        ("profile", "olny", ["profile: no profile is called 'olny'; did you mean 'only'?"]),
        ("profiles.only", None, ["profiles.only: expected settings, found None"]),
        ("profiles.only.budget", 3, ["profiles.only.budget: expected settings, found 3"]),
        ("profiles.only.data", {"path": "x"}, ["profiles.only.data.path: ", "data.path", "remove this"]),
        ("data.sample.seed", "11711", ["data.sample.seed: ", "integer", "not '11711'"]),
        ("data.source", "samples", ["data.source: 'samples' is not valid; did you mean 'sample'?"]),
        ("data.path", None, ["data.path: ", "string", "not None"]),
        ("prepare.max_tokens", 513, ["prepare.max_tokens: input should be less than or equal to 512, not 513"]),
        ("prepare.max_tokens", True, ["prepare.max_tokens: ", "integer", "not True"]),
        ("prepare.on_bad_row", "ignore", ["prepare.on_bad_row: 'ignore' is not valid; valid: error, drop"]),
        ("encoder.source", "hup", ["encoder.source: 'hup' is not valid; did you mean 'hub'?"]),
        ("encoder.name", 1, ["encoder.name: ", "string", "not 1"]),
        ("compute.threads", 0, ["compute.threads: input should be greater than or equal to 1, not 0"]),
        ("compute.threads", True, ["compute.threads: True is not valid; valid: auto or a number"]),
        ("compute.threads", "all", ["compute.threads: 'all' is not valid", "auto", "number"]),
        ("compute.cuda_graphs", "yes", ["compute.cuda_graphs: 'yes' is not valid", "auto"]),
        ("compute.cuda_graphs", 1, ["compute.cuda_graphs: "]),
        (
            "runs.baseline.tasks",
            ["stss"],
            ["runs.baseline.tasks.0: 'stss' has no head; did you mean 'sts'?; give it one"],
        ),
        ("runs.baseline.tasks", "sst", ["runs.baseline.tasks: ", "list", "not 'sst'"]),
        ("runs.baseline.pooling", "average", ["runs.baseline.pooling: 'average' is not valid; valid: cls, mean, max"]),
        (
            "runs.baseline.sampler",
            "sqare_root",
            ["runs.baseline.sampler: 'sqare_root' is not valid", "did you mean 'square_root'? or a number"],
        ),
        (
            "runs.baseline.aggregation",
            "mean",
            ["runs.baseline.aggregation: ", "sampler is sequential; set sampler: joint"],
        ),
        (
            "runs.dora_r4.further_pretraining",
            {"steps": 9, "batch_size": 8, "learning_rate": 1e-4},
            ["runs.dora_r4.further_pretraining: ", "an adapter keeps", "set it or adapter to null"],
        ),
        ("runs.baseline.measure_conflicts", 0, ["runs.baseline.measure_conflicts: ", "greater than or equal to 1"]),
        (
            "runs.baseline.epoch_end",
            "deplete",
            ["runs.baseline.epoch_end: 'deplete' is not valid", "did you mean 'depletion'? or a number"],
        ),
        ("runs.baseline.epoch_end", {"tokens": 0}, ["runs.baseline.epoch_end.tokens: ", "greater than or equal to 1"]),
        ("runs.baseline.epochs", 2.5, ["runs.baseline.epochs: ", "integer", "not 2.5"]),
        ("runs.baseline.learning_rate", "1e-5", ["runs.baseline.learning_rate: ", "number", "not '1e-5'"]),
        (
            "runs.baseline.heads.quora",
            {"objective": "bc", "features": ["u"]},
            ["runs.baseline.heads.quora.objective: 'bc' is not valid", "did you mean 'bce'?"],
        ),
        ("runs.concat_u_v.heads.sts.clamp", "yes", ["runs.concat_u_v.heads.sts.clamp: ", "boolean", "not 'yes'"]),
        (
            "runs.concat_u_v.heads.sts.features",
            ["u", "|v-u|"],
            ["runs.concat_u_v.heads.sts.features.1: '|v-u|' is not valid"],
        ),
        ("runs.dora_r4.adapter.method", "dorra", ["adapter.method: 'dorra' is not valid; did you mean 'dora'?"]),
        ("runs.dora_r4.adapter.norm_gradient", 3.25, ["norm_gradient: 3.25 is not valid; valid: exact, detached"]),
        (
            "runs.dora_r4.adapter.method",
            "lora",
            [
                "unknown key runs.dora_r4.adapter.norm_gradient; it belongs to another method, remove it (valid here: method,"
            ],
        ),
        (
            "runs.best_performance.adapter",
            {"method": "bitfit", "start_from": "pretrained", "train_rest": True},
            ["runs.best_performance.adapter.train_rest: bitfit trains nothing else of the encoder; set it to false"],
        ),
        (
            "runs.dora_r4.adapter",
            "dora",
            ["runs.dora_r4.adapter: must be a section with method, learning_rate, train_rest, start_from, not 'dora'"],
        ),
        ("runs.baseline.pair_layer", 8, ["runs.baseline.pair_layer: must be a section with size, not 8"]),
        ("runs.baseline.task_weights", 2.0, ["runs.baseline.task_weights: must be a section, not 2.0"]),
        ("runs.baseline", None, ["runs.baseline: expected settings, found None"]),
        ("runs", {}, ["runs: expected a mapping of names to settings; add at least one"]),
        ("runs", None, ["runs: expected a mapping of names to settings"]),
        ("prepare", [], ["prepare: expected settings, found []"]),
        ("prepare", None, ["prepare: expected settings, found None"]),
        ("tables", [], ["tables: ", "not []"]),
        ("tables.table4", None, ["tables.table4: ", "not None"]),
        ("runs.baseline.epochs", 10**999, ["runs.baseline.epochs: ", "less than or equal to 1000, not 1000", "..."]),
        ("runs.baseline.learning_rate", 10**999, ["runs.baseline.learning_rate: "]),
    ],
)
def test_a_mistyped_or_out_of_range_value(fault: Fault, key: str, value: Any, parts: list[str]) -> None:
    lines = fault({key: value})
    assert "\n" not in lines, "one fault, one line"
    assert len(lines) < 300
    for part in parts:
        assert part in lines


def test_a_linear_probe_of_a_head_without_weights_is_refused(fault: Fault) -> None:
    probe = {"method": "linear_probe", "start_from": "pretrained"}
    assert fault({"runs.baseline.tasks": ["sst", "sts"], "runs.baseline.adapter": probe}) == (
        "runs.baseline.tasks.1: the head of sts has no weights, so a linear probe has nothing to train for it; give the head another "
        "objective, or remove the task here"
    )


def test_settings_that_an_adapter_leaves_without_effect_are_refused(fault: Fault) -> None:
    probe, pal = (
        {"runs.baseline.adapter": {"method": method, "start_from": "pretrained", **size}}
        for method, size in (("linear_probe", {}), ("pal", {"size": 4, "train_rest": False}))
    )
    assert fault({"runs.baseline.optimization": {"head_learning_rate": 1e-3}, **probe}) == (
        "runs.baseline.optimization.head_learning_rate: the heads of a linear probe train at adapter.learning_rate; set it to null"
    )
    two = {"runs.baseline.tasks": ["sst", "quora"], "runs.baseline.sampler": "joint"}
    for key, value in (("measure_conflicts", 9), ("aggregation", "mean")):
        message = (
            f"runs.baseline.{key}: with pal no parameter of the encoder trains that the tasks share; set it to null"
        )
        assert fault({f"runs.baseline.{key}": value, **two, **pal}) == message


def test_runs_of_several_seeds_differ_in_nothing_else(flat: dict[str, Any], load: Load, fault: Fault) -> None:
    seeds = {"seeds": {"best_performance": ["two"]}}
    two = flat["runs"]["best_performance"] | {"seed": 2}
    assert load(seeds | {"runs.two": two}).seeds == seeds["seeds"]
    for others, changes, message in (
        (["tow"], {}, "seeds.best_performance.0: no run is called 'tow'; did you mean 'two'?"),
        (
            ["two"],
            {"epochs": 7, "sampler": 0.5},
            "seeds.best_performance.0: two differs from best_performance in sampler, epochs",
        ),
        (["two"], {"seed": 11711}, "seeds.best_performance.0: two has the seed of best_performance; give it another"),
        (["two", "two"], {}, "seeds.best_performance.1: two has the seed of two; give it another"),
        ("two", {}, "seeds.best_performance: input should be a valid list"),
    ):
        line = fault({"seeds": {"best_performance": others}, "runs.two": two | changes})
        assert line.startswith(message) and "\n" not in line
    assert fault({"seeds": {"best": ["baseline"]}}).startswith("seeds.best: no run is called 'best'")


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    "key",
    [
        "runs.baseline.sampler",
        "runs.baseline.learning_rate",
        "runs.baseline.heads.sts.margin",
        "runs.dora_r4.adapter.alpha",
        "profiles.only.budget.rest_learning_rate",
    ],
)
def test_no_setting_is_infinite(tmp_path: Path, load: Load, key: str, number: float) -> None:
    load({key: 0.123456789})
    path = tmp_path / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("0.123456789", f".{number}"), encoding="utf-8")
    with pytest.raises(MtbertError, match=rf"{re.escape(key)}: .*not {number}"):
        load_params(path)


START = "runs.dora_r4.adapter.start_from"


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
            {"runs.concat_u_v.heads.quora.features": ["c"]},
            "runs.concat_u_v: quora uses c, which needs encoding: cross, but encoding is bi",
        ),
        (
            {"runs.concat_u_v.encoding": "both"},
            "runs.concat_u_v: encoding is both, but every feature is bi-encoded; set encoding: bi",
        ),
        (
            {"runs.best_performance.heads.quora.features": ["c"], "runs.best_performance.heads.sts.features": ["c"]},
            "runs.best_performance: encoding is both, but every feature is cross-encoded; set encoding: cross",
        ),
        (
            {"runs.concat_u_v.heads.sts.features": ["u", "v", "u"]},
            "runs.concat_u_v.heads.sts.features: a feature is listed twice; remove one",
        ),
        ({"runs.baseline.tasks": ["sst", "sst"]}, "runs.baseline.tasks: a task is listed twice; remove one"),
        (
            {"encoder.random.heads": 5},
            "encoder.random.hidden: 32 is not a multiple of heads (5); change one of them",
        ),
        (
            {"encoder.source": "hub"},
            "encoder.source: hub needs name, a hub's name, such as google-bert/bert-base-uncased; add it",
        ),
        (
            {"profiles.only.encoder": {"source": "hub", "name": "a/b"}},
            "profiles.only.encoder.source: hub needs revision, a commit of 40 hex digits (branches move); add it",
        ),
        (
            {**HUB, "encoder.revision": "main"},
            "encoder.revision: must be a commit of 40 hex digits (branches move), not 'main'",
        ),
        (
            {"encoder.name": "a/b", "profiles.only.encoder.source": "minilm"},
            "encoder.name: source minilm does not use it; remove it, or set source to hub",
        ),
        (
            {"encoder.source": "random", "encoder.revision": "0" * 40},
            "encoder.revision: source random does not use it; remove it, or set source to hub",
        ),
        (
            {"profiles.only.encoder.source": "local", "profiles.only.encoder.name": "a/b"},
            "profiles.only.encoder.name: source local does not use it; remove it, or set source to hub",
        ),
        (
            {"encoder.source": "random", "encoder.sha256": "0" * 64},
            "encoder.sha256: source random does not use it; remove it, or set source to minilm or hub or local",
        ),
        ({"encoder.sha256": "abc"}, "encoder.sha256: must be 64 hex digits, or null"),
        (
            {START: "best_perfomance"},
            f"{START}: no run is called 'best_perfomance'; did you mean 'best_performance'?",
        ),
        (
            {START: "dora_r4"},
            f"{START}: 'dora_r4' is not a fully fine-tuned run; an adapter must start from one, or from pretrained",
        ),
        (
            {START: "dora_r8"},
            f"{START}: 'dora_r8' is not a fully fine-tuned run; an adapter must start from one, or from pretrained",
        ),
        (
            {START: "concat_u_v"},
            f"{START}: heads, pooling, encoding or pair_layer of 'concat_u_v' differ from those of dora_r4; name another run",
        ),
        (
            {"runs.best_performance.pair_layer": {"size": 8}, "runs.best_performance.heads.sts.features": ["u", "c"]},
            "runs.best_performance.heads.sts.features: must be u, v, c, as those of quora: with pair_layer all tasks of pairs "
            "have the same; change them, or remove pair_layer",
        ),
        (
            {"runs.baseline.pair_layer": {"size": 8}},
            "runs.baseline.pair_layer: no task of pairs has a linear head; give one `features`, or remove pair_layer",
        ),
        (
            {"runs.best_performance.task_weights": {"qora": 2.0}},
            "runs.best_performance.task_weights.qora: 'qora' is not a task of this run; did you mean 'quora'?; correct the "
            "name, or remove it",
        ),
        (
            {"runs.baseline.task_weights": {"sst": 2.0}, "runs.baseline.uncertainty": {}},
            "runs.baseline.task_weights: the weights are learned by uncertainty; remove one of the two keys",
        ),
        (
            {"runs.baseline.r_drop": 1.0, "runs.baseline.encoder_dropout": 0.0, "runs.baseline.head_dropout": 0.0},
            "runs.baseline.r_drop: needs dropout, which makes the two passes differ; set encoder_dropout or head_dropout, or "
            "remove it",
        ),
        (
            {"runs.baseline.tasks": ["quora"], "runs.baseline.r_drop": 1.0, "runs.baseline.encoder_dropout": 0.0},
            "runs.baseline.r_drop: needs dropout, which makes the two passes differ; set encoder_dropout or head_dropout, or "
            "remove it",
        ),
        (
            {"runs.best_performance.batch_size": 1}
            | {"runs.best_performance.heads.sts": {"objective": "pearson", "features": ["u", "v", "c"], "clamp": True}},
            "runs.best_performance.batch_size: is 1, but pearson, the objective of sts, compares the examples of a batch; set it "
            "to at least 2, or choose another objective",
        ),
        (
            {"tables.table1.baseline": "baselin"},
            "tables.table1.baseline: no run is called 'baselin'; did you mean 'baseline'?; "
            "correct the name or remove the row",
        ),
        (
            {"figures.figure3.r4": "gone"},
            "figures.figure3.r4: no run is called 'gone'; valid: baseline, best_performance, concat_u_v, dora_r4, "
            "dora_r8; correct the name or remove the row",
        ),
    ],
)
def test_a_contradiction(fault: Fault, changes: dict[str, Any], message: str) -> None:
    assert fault(changes) == message


BAD_NAMES = ["Baseline", "my-run", "../up", "1st", "", "pretrained", "converted", "a" * 65, "é"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("runs", name) for name in BAD_NAMES), *((kind, "my-run") for kind in ("profiles", "tables", "figures"))],
)
def test_a_bad_name(load: Load, flat: dict[str, Any], kind: str, name: str) -> None:
    one = next(iter(flat[kind].values()))
    with pytest.raises(MtbertError, match=rf"{kind}\.{re.escape(name)}: a name is lower-case letters"):
        load({kind: {**flat[kind], name: one}})


def test_a_name_must_be_text(load: Load, flat: dict[str, Any], tmp_path: Path) -> None:
    load({"runs": {**flat["runs"], "number": flat["runs"]["baseline"]}})
    path = tmp_path / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace('"number": ', "7: "), encoding="utf-8")
    with pytest.raises(MtbertError, match=r"runs\.7: a name must be text"):
        load_params(path)


def test_a_run_may_have_any_good_name(load: Load, flat: dict[str, Any]) -> None:
    names = ["mine_2", "a" * 64, "mse", "linear"]
    loaded = load({"runs": {**flat["runs"], **dict.fromkeys(names, flat["runs"]["baseline"])}})
    assert [*loaded.runs][-4:] == names


@pytest.mark.parametrize("name", ["mse", "linear", "float", "auto", "adapter"])
def test_a_fault_in_a_run_called_like_an_inner_word(fault: Fault, flat: dict[str, Any], name: str) -> None:
    assert fault({f"runs.{name}": {**flat["runs"]["baseline"], "epoch": 1}}) == (
        f"unknown key runs.{name}.epoch; did you mean 'epochs'?"
    )


@pytest.mark.parametrize(
    "keys",
    [
        ("data.sample.seed", "encoder.random.seed"),
        ("runs.baseline.epochs", "runs.baseline.batch_size"),
        ("runs.dora_r4.adapter.rank", "runs.dora_r8.adapter.rank"),
        ("runs.baseline.encoding", "runs.concat_u_v.encoding"),  # a contradiction in the same words
    ],
)
def test_the_same_fault_of_two_keys_is_reported_twice(fault: Fault, keys: tuple[str, str]) -> None:
    lines = fault(dict.fromkeys(keys, "cross" if keys[0].endswith("encoding") else -1)).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [key.removesuffix(".encoding") for key in keys]


def test_all_faults_are_reported_at_once(fault: Fault) -> None:
    lines = fault({"data.sorce": 1, "runs.baseline.epochs": 0, "prepare.leakage": DELETE}).splitlines()
    assert len(lines) == 3
    assert all(key in "\n".join(lines) for key in ("data.sorce", "runs.baseline.epochs", "prepare.leakage"))
    assert len(fault({"encodr": 1, "zzz": 1}).splitlines()) == 2


# ---- faults of the shipped file, whose runs inherit


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"profiles.sample.budget.epochs": 0},
            [r"profiles\.sample\.budget\.epochs: .*, not 0 \(inherited by 15 runs\)"],
        ),
        (
            {"profiles.sample.budget.epochs": DELETE},
            [r"missing key profiles\.sample\.budget\.epochs; .*\(inherited by 15 runs\)"],
        ),
        (
            {"profiles.sample.budget.rest_learning_rate": -1},
            [r"profiles\.sample\.budget\.rest_learning_rate: .* \(inherited by 4 runs\)"],
        ),
        (
            {"profiles.sample.budget.adapter_learning_rate": DELETE},
            [r"missing key profiles\.sample\.budget\.adapter_learning_rate; .*\(inherited by 4 runs\)"],
        ),
        ({"profiles.course.budget.epochs": 0}, [r"profiles\.course\.budget\.epochs: .*\(inherited by 15 runs\)"]),
        ({"profiles.paper.prepare.on_bad_row": 1}, [r"profiles\.paper\.prepare\.on_bad_row: 1 is not valid.*"]),
        ({"profiles.paper.encoder.revision": DELETE}, [r"profiles\.paper\.encoder\.source: hub needs revision, .*"]),
        ({"profiles.paper.encoder.sha256": "x"}, [r"profiles\.paper\.encoder\.sha256: must be 64 hex digits, or null"]),
        ({"prepare.leakage": 1}, [r"prepare\.leakage: 1 is not valid.*"]),
        ({"runs.baseline.pooling": DELETE}, [r"missing key runs\.baseline\.pooling; .*\(inherited by 2 runs\)"]),
        ({"runs.key_update_3.pooling": "men"}, [r"runs\.key_update_3\.pooling: 'men' .*\(inherited by 11 runs\)"]),
        ({"runs.dora_r4.adapter.method": "dra"}, [r"runs\.dora_r4\.adapter\.method: .*\(inherited by 3 runs\)"]),
        ({"runs.dora_r4.adapter.method": DELETE}, [r"missing key runs\.dora_r4\.adapter\.method; .*by 3 runs\)"]),
        ({"runs.dora_r4.adapter.dropot": 0}, [r"unknown key runs\.dora_r4\.adapter\.dropot; .*by 3 runs\)"]),
        ({"runs.dora_r8.adapter.rank": 0}, [r"runs\.dora_r8\.adapter\.rank: .*, not 0"]),
        ({"runs.dora_r4.adapter.start_from": "bst"}, [r"runs\.dora_r4\.adapter\.start_from: no run is called 'bst'.*"]),
        ({"runs.baseline.tasks": ["sst", "sst"]}, [r"runs\.baseline\.tasks: a task is listed twice; remove one"]),
        (
            {"runs.best_performance.encoding": "bi"},
            [r"runs\.best_performance: quora uses u, v, c, .*\(inherited by 8 runs\)"],
        ),
        (  # heirs of heirs count too
            {"runs.dora_r4.encoding": "bi", "runs.dora_r32.from": "dora_r16"},
            [r"runs\.dora_r4: quora uses u, v, c, .*\(inherited by 3 runs\)"],
        ),
        (
            {"runs.sampler_balanced.heads.quora": {"objective": "cosine"}, "runs.mine": {"from": "sampler_balanced"}}
            | {"runs.mine.heads.quora": {"objective": "bce"}},
            [r"missing key runs\.mine\.heads\.quora\.features; .*"],
        ),
        (  # a section with another objective inherits no keys
            {"runs.best_performance.heads.sts": {"objective": "mse", "features": ["u", "v", "c"]}},
            [
                r"missing key runs\.best_performance\.heads\.sts\.clamp; add it .*\(inherited by 10 runs\)",
            ],
        ),
        (
            {"runs.best_performance.heads.sts.objective": "cosine_embedding"},
            [
                r"unknown key runs\.best_performance\.heads\.sts\.features; it belongs .*\(inherited by 8 runs\)",
                r"unknown key runs\.best_performance\.heads\.sts\.clamp; it belongs .*\(inherited by 10 runs\)",
                r"unknown key runs\.concat_u_v\.heads\.sts\.features; .*",
                r"unknown key runs\.concat_sum_diff\.heads\.sts\.features; .*",
            ],
        ),
        (
            {"runs.key_update_2.from": "key_update1"},
            [r"runs\.key_update_2\.from: no run is called 'key_update1'; did you mean 'key_update_1'\?"],
        ),
        (  # in the run that contradicts what it inherits, not where that stands
            {
                "runs.key_update_1.further_pretraining": {"steps": 1, "batch_size": 1, "learning_rate": 1.0},
                "runs.dora_r4.adapter.train_rest": False,
            },
            [r"runs\.dora_r4\.further_pretraining: trains the encoder's own .*\(inherited by 3 runs\)"],
        ),
        ({"runs.dora_r4.from": ["a"]}, [r"runs\.dora_r4\.from: no run is called \['a'\]; .*"]),
        (
            {"runs.baseline.from": "key_update_2"},
            [
                r"runs\.key_update_1\.from: leads back to the same run "
                r"\(baseline <- key_update_2 <- key_update_1 <- baseline\); remove it"
            ],
        ),
        (
            {"runs.baseline.from": "baseline"},
            [r"runs\.baseline\.from: leads back to the same run \(baseline <- baseline\); remove it"],
        ),
        (
            {"tables.table3.balanced": "sampler_balancd"},
            [r"tables\.table3\.balanced: no run is called 'sampler_balancd'; did you mean 'sampler_balanced'\?; .*"],
        ),
        (
            {"runs.sampler_balanced": DELETE},
            [r"tables\.table3\.balanced: no run .*; correct the name or remove the row"],
        ),
    ],
)
def test_a_fault_is_reported_once_where_it_is_caused(fault: Fault, changes: dict[str, Any], lines: list[str]) -> None:
    found = fault(changes, alone=False).splitlines()
    assert len(found) == len(lines), found
    for line in lines:
        assert any(re.fullmatch(line, other) for other in found), (line, found)


def test_a_chain_of_predecessors_has_an_end(fault: Fault) -> None:
    chain = {f"runs.r{n}": {"from": f"r{n - 1}" if n else "baseline"} for n in range(120)}
    assert re.fullmatch(r"runs\.r\d+\.from: r\d+ has more than 100 predecessors; .*", fault(chain, alone=False))


# ---- files that are not a params.yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", rf"params\.yaml: expected sections \({TOP}\), found NoneType"),
        ("- data\n", r"params\.yaml: expected sections .*found list"),
        ("just text\n", r"params\.yaml: expected sections .*found str"),
        ("1: 2\n", r"params\.yaml: unknown key 1; valid: profile, "),
    ],
)
def test_a_file_that_is_not_params(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(MtbertError, match=message):
        load_params(tmp_path / "params.yaml")


# ---- names that others define


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tables.scroes": {"a": "baseline"}}, "tables.scroes: no table is called 'scroes'; did you mean 'scores'?"),
        ({"figures.scores": {"a": "baseline"}}, "figures.scores: no figure is called 'scores'; valid: figure1, "),
        ({"tables.table1": {}}, "tables.table1: names no run; add a row (ROW: RUN), or remove it"),
    ],
)
def test_a_table_or_figure_that_no_stage_can_make(fault: Fault, changes: dict[str, Any], message: str) -> None:
    assert fault(changes).startswith(message)


def test_the_tables_and_figures_are_those_of_the_stages() -> None:
    from stages import figure, table

    assert {"tables": list(table.TABLES), "figures": list(figure.FIGURES)} == VIEWS


def test_a_hub_s_name_is_one_that_the_hub_accepts(load: Load, fault: Fault) -> None:
    hub = pytest.importorskip("huggingface_hub.utils")
    for name in ("bert", "google-bert/bert-base-uncased", "a.git/b_", "a/" + "b" * 96):
        hub.validate_repo_id(name)
        assert load({**HUB, "encoder.name": name}).encoder.name == name
    for name in ("https://hf.co/a/b", "a/b/c", "a b", "a--b", "a..b", "-a/b", "a/b.", "a.git", "é", "a/" + "b" * 97):
        with pytest.raises(ValueError):
            hub.validate_repo_id(name)
        assert fault({**HUB, "encoder.name": name}) == (
            f"encoder.name: must be a hub's name, such as google-bert/bert-base-uncased, not {name!r}"
        )
