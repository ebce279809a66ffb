"""params.yaml -> typed and strict: an unknown, missing or contradictory key is an error that names it.

The dataclass-like models below are the one list of every setting. Stages read them here and hand plain values on.
"""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from mtbert.errors import MtbertError

PARAMS_FILE = Path("params.yaml")
RUN_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
# Which sources an optional key of the encoder belongs to.
ENCODER_KEYS = {"name": ["hub"], "revision": ["hub"], "path": ["local"], "sha256": ["minilm", "hub", "local"]}
RESERVED_RUN_NAMES = {"pretrained", "converted"}

TaskName = Literal["sst", "quora", "sts"]
Feature = Literal["u", "v", "|u-v|", "|u+v|", "c"]
SamplerName = Literal["sequential", "round_robin", "proportional", "square_root", "balanced"]

Probability = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """Base of every section: no unknown keys, no silent conversions (`"8"` is not 8), no changes after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SampleSizes(Section):
    """Examples per split of one generated task."""

    train: int = Field(ge=8)
    dev: int = Field(ge=8)
    test: int = Field(ge=8)


class SampleTasks(Section):
    sst: SampleSizes
    quora: SampleSizes
    sts: SampleSizes


class Sample(Section):
    """The embedded default data: generated English, a pure function of these keys."""

    seed: Seed
    label_noise: Probability
    sizes: SampleTasks


class Data(Section):
    source: Literal["sample", "cs224n"]
    path: str = Field(min_length=1)
    sample: Sample


class Prepare(Section):
    on_bad_row: Literal["error", "drop"]
    leakage: Literal["keep", "drop"]
    preprocess: Literal["course", "none"]
    max_tokens: int = Field(ge=8, le=512)


class RandomEncoder(Section):
    """Size of a randomly initialised encoder (tests, throughput)."""

    seed: Seed
    layers: int = Field(ge=1)
    hidden: int = Field(ge=1)
    heads: int = Field(ge=1)
    intermediate: int = Field(ge=1)
    positions: int = Field(ge=8)

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> "RandomEncoder":
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class Encoder(Section):
    source: Literal["minilm", "hub", "local", "random"]
    name: str | None
    revision: str | None
    path: str | None
    sha256: str | None
    random: RandomEncoder

    @model_validator(mode="after")
    def _source_has_its_keys(self) -> "Encoder":
        if self.source == "hub":
            if not self.name:
                raise ValueError(
                    "source is hub, so encoder.name must be a hub name, such as google-bert/bert-base-uncased"
                )
            if not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
                raise ValueError("source is hub, so encoder.revision must be a commit of 40 hex digits (branches move)")
        if self.source == "local" and not self.path:
            raise ValueError(
                "source is local, so encoder.path must name a folder with config.json, tokenizer.json, model.safetensors"
            )
        if self.source == "local" and not self.sha256:
            raise ValueError(
                "source is local, so encoder.sha256 must hold the checksum of its model.safetensors (`sha256sum FILE`): "
                "weights that change under the same path must not pass for the same encoder"
            )
        for key, sources in ENCODER_KEYS.items():
            if getattr(self, key) is not None and self.source not in sources:
                raise ValueError(
                    f"source is {self.source}, which has no use for encoder.{key}; set it to null, "
                    f"or encoder.source to {' or '.join(sources)}"
                )
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError("sha256 must be 64 hex digits, or null")
        return self


class Compute(Section):
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "bf16"]
    threads: Literal["auto"] | Annotated[int, Field(ge=1)]
    cuda_graphs: bool
    checkpoint_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class CosineHead(Section):
    """logit = cos(u, v), nothing to learn (section 4.1)."""

    objective: Literal["cosine"]


class LinearHead(Section):
    """logit = linear layer over the concatenated features, binary cross-entropy (section 4.2)."""

    objective: Literal["linear"]
    features: list[Feature] = Field(min_length=1)


class CosineEmbedding(Section):
    """Equation 1 on (u, v); similarity >= threshold maps to y = 1, below to y = -1 (section 4.4)."""

    objective: Literal["cosine_embedding"]
    margin: float = Field(ge=-1, le=1)
    threshold: float = Field(gt=0, le=5)


class Regression(Section):
    """Mean squared error of a linear layer over the features; predictions clamped to [0, 5] if `clamp` (section 4.4)."""

    objective: Literal["mse"]
    features: list[Feature] = Field(min_length=1)
    clamp: bool


class Dora(Section):
    """Equation 2. `adapter.start_from` names the weights to convert: the pretrained encoder or another run's result."""

    method: Literal["dora"]
    rank: int = Field(ge=1)
    alpha: Positive
    dropout: Probability
    train_rest: bool
    norm_gradient: Literal["exact", "detached"]
    start_from: str


class Run(Section):
    """One configuration of the paper: what is trained, how the sentences are represented, and for how long."""

    tasks: list[TaskName] = Field(min_length=1)
    pooling: Literal["cls", "mean", "max"]
    encoding: Literal["bi", "cross", "both"]
    quora: Annotated[CosineHead | LinearHead, Field(discriminator="objective")]
    sts: Annotated[CosineEmbedding | Regression, Field(discriminator="objective")]
    sampler: SamplerName | Annotated[float, Field(ge=0, allow_inf_nan=False)]
    epoch_end: Literal["depletion"] | Annotated[int, Field(ge=1)]
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: Positive
    encoder_dropout: Probability
    head_dropout: Probability
    seed: Seed
    adapter: Dora | None

    @model_validator(mode="after")
    def _no_contradictions(self) -> "Run":
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError("tasks names a task twice")
        needed: set[str] = set()
        for name, head in (("quora", self.quora), ("sts", self.sts)):
            features = getattr(head, "features", ["u", "v"])
            if len(set(features)) != len(features):
                raise ValueError(f"{name}.features names a feature twice")
            needs = {"cross" if feature == "c" else "bi" for feature in features}
            if self.encoding != "both" and needs != {self.encoding}:
                raise ValueError(
                    f"{name} uses {', '.join(features)}, which needs encoding: "
                    f"{'both' if len(needs) == 2 else next(iter(needs))}, but encoding is {self.encoding}"
                )
            needed |= needs
        if self.encoding == "both" and len(needed) == 1:
            raise ValueError(
                f"encoding is both, but every feature is {needed.pop()}-encoded; say encoding: bi or cross"
            )
        return self


class Report(Section):
    folder: str = Field(min_length=1)


class Params(Section):
    data: Data
    prepare: Prepare
    encoder: Encoder
    compute: Compute
    runs: dict[str, Run] = Field(min_length=1)
    report: Report

    @model_validator(mode="after")
    def _runs_agree(self) -> "Params":
        for name, run in self.runs.items():
            if not RUN_NAME.fullmatch(name) or name in RESERVED_RUN_NAMES:
                raise ValueError(
                    f"runs.{name}: a run's name is lower-case letters, digits and _, starts with a letter, "
                    f"and is none of {', '.join(sorted(RESERVED_RUN_NAMES))}"
                )
            start = run.adapter.start_from if run.adapter else "pretrained"
            if start == "pretrained":
                continue
            if start not in self.runs:
                raise ValueError(
                    f"runs.{name}.adapter.start_from: no run is called {start!r}"
                    f"{nearest(start, ['pretrained', *self.runs])}"
                )
            if start == name or self.runs[start].adapter is not None:
                raise ValueError(
                    f"runs.{name}.adapter.start_from: {start!r} must be a fully fine-tuned run; DoRA starts from plain weights"
                )
            if any(
                getattr(run, key) != getattr(self.runs[start], key) for key in ("quora", "sts", "pooling", "encoding")
            ):
                raise ValueError(
                    f"runs.{name}.adapter.start_from: {start!r} has other heads, pooling or encoding than {name}"
                )
        return self

    def run(self, name: str) -> Run:
        """The run called `name`; an unknown name is an error with the nearest valid one."""
        if name not in self.runs:
            raise MtbertError(f"params.yaml: no run is called {name!r}{nearest(name, list(self.runs))}")
        return self.runs[name]


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check the whole of params.yaml.

    Raises:
        MtbertError: the file is missing, is not YAML, or has unknown, missing, mistyped or contradictory keys; every
            such key is named, an unknown one with its nearest valid neighbour.
    """
    try:
        # YAML 1.2, as DVC reads it: 1e-5 is a number and `on` is text.
        tree = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MtbertError(f"{path}: not found; run from the project's root, where params.yaml lies") from None
    except UnicodeDecodeError as error:
        raise MtbertError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise MtbertError(f"{where}: not valid YAML: {error.problem}") from None
    except YAMLError as error:  # a control character
        raise MtbertError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise MtbertError(f"{path}: expected sections ({', '.join(Params.model_fields)}), found {type(tree).__name__}")
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        raise MtbertError("\n".join(f"{path}: {line}" for line in _explain_all(error.errors()))) from None


def nearest(word: str, valid: list[str]) -> str:
    """`; did you mean 'x'?` and the valid names, for the end of an error message."""
    close = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; valid: {', '.join(valid)}"


def _explain_all(details: list[ErrorDetails]) -> list[str]:
    """One line per faulty key; a fault that runs inherit from each other is told once, where it comes first."""
    first_place: dict[str, str] = {}
    heirs: dict[str, int] = {}
    seen: set[str] = set()
    for detail in details:
        # pydantic puts the chosen union member into the location (runs.x.sts.mse.clamp); users know no such key.
        # A run, though, may be called like one, and so may an unknown key.
        loc = detail["loc"]
        last = len(loc) - 1 if detail["type"] == "extra_forbidden" else None
        place = [
            str(part)
            for n, part in enumerate(loc)
            if part not in _UNION_TAGS or n == last or (n == 1 and loc[0] == "runs")
        ]
        key = ".".join(place) or "params"
        # A key that fits neither member of a union (a name or a number) is reported once by each; the first names the words.
        if key in seen and detail["type"] not in ("missing", "extra_forbidden"):
            continue
        seen.add(key)
        prefix = ".".join(place[:2]) if place[:1] == ["runs"] else ""
        message = _explain(detail, place).replace(prefix, "\0") if prefix else _explain(detail, place)
        first_place.setdefault(message, prefix)
        heirs[message] = heirs.get(message, -1) + 1
    return [
        message.replace("\0", first_place[message])
        + (f" (inherited by {count} more run{'s' * (count > 1)})" if (count := heirs[message]) else "")
        for message in first_place
    ]


def _explain(detail: ErrorDetails, place: list[str]) -> str:
    key = ".".join(place)
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key}{nearest(place[-1], _siblings(detail['loc']))}"
    if detail["type"] == "missing":
        return f"missing key {key}; add it (valid here: {', '.join(_siblings(detail['loc']))})"
    if detail["type"] == "literal_error":
        options = re.findall(r"'([^']+)'", str(detail.get("ctx", {}).get("expected", "")))
        number = " or a number" if len(detail["loc"]) > len(place) else ""
        return f"{key}: {detail['input']!r} is not valid{nearest(str(detail['input']), options)}{number}"
    if detail["type"] == "union_tag_not_found":  # `objective` is what tells the kinds of head apart
        given = [str(name) for name in detail["input"]] if isinstance(detail["input"], dict) else []
        misspelt = difflib.get_close_matches("objective", given, n=1, cutoff=0.5)
        if misspelt:
            return f"unknown key {key}.{misspelt[0]}; did you mean 'objective'?"
        return f"missing key {key}.objective; add it (valid: {', '.join(_OBJECTIVES)})"
    if detail["type"] == "union_tag_invalid":
        options = re.findall(r"'([^']+)'", str(detail.get("ctx", {}).get("expected_tags", "")))
        tag = str(detail.get("ctx", {}).get("tag", ""))
        return f"{key}.objective: {tag!r} is not valid{nearest(tag, options)}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"{key}: {message}" if place else message
    return f"{key}: {message[:1].lower()}{message[1:]}, not {detail['input']!r}"


_UNION_TAGS = {
    "cosine",
    "linear",
    "cosine_embedding",
    "mse",
    "Dora",
    "constrained-int",
    "constrained-float",
    "float",
    "int",
} | {
    f"literal[{','.join(repr(value) for value in get_args(union))}]"
    for union in (SamplerName, Literal["depletion"], Literal["auto"])
}
_OBJECTIVES: dict[Any, type[Section]] = {
    "cosine": CosineHead,
    "linear": LinearHead,
    "cosine_embedding": CosineEmbedding,
    "mse": Regression,
}


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """The valid keys beside the last part of `location`."""
    inside_run = location[0] == "runs" and len(location) > 2
    model: type[Section] = Run if inside_run else Params
    for part in location[2:-1] if inside_run else location[:-1]:
        if part in _OBJECTIVES:
            model = _OBJECTIVES[part]
        elif part in model.model_fields:
            for inner in _sections(model.model_fields[str(part)].annotation):
                model = inner
    return list(model.model_fields)


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections(inner)]
