"""Every setting of a stage, typed and strict; `mtbert.params` puts them together from params.yaml, a plan file holds them resolved."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Which sources an optional key of the encoder belongs to.
ENCODER_KEYS = {"name": ["hub"], "revision": ["hub"], "sha256": ["minilm", "hub", "local"]}

TaskName = Literal["sst", "quora", "sts"]
Feature = Literal["u", "v", "|u-v|", "|u+v|", "c"]
SamplerName = Literal["sequential", "round_robin", "proportional", "square_root", "balanced"]

Probability = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Epochs = Annotated[int, Field(ge=1, le=1000)]
EpochEnd = Literal["depletion"] | Annotated[int, Field(ge=1, le=10_000_000)]
BatchSize = Annotated[int, Field(ge=1, le=65536)]
SplitSize = Annotated[int, Field(ge=8, le=1_000_000)]


class Section(BaseModel):
    """Base of every section: no unknown keys, no silent conversions (`"8"` is not 8), no changes after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Contradiction(ValueError):
    """Settings that do not fit together; `keys` lead from the section that is checked to the key that has to change."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


class SampleSizes(Section):
    """Examples per split of one generated task."""

    train: SplitSize
    dev: SplitSize
    test: SplitSize


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
    source: Literal["sample", "folder", "download"]
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
    layers: int = Field(ge=1, le=128)
    hidden: int = Field(ge=1, le=8192)
    heads: int = Field(ge=1, le=8192)
    intermediate: int = Field(ge=1, le=32768)
    positions: int = Field(ge=8, le=32768)

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> "RandomEncoder":
        if self.hidden % self.heads:
            raise Contradiction(
                f"{self.hidden} is not a multiple of heads ({self.heads}); change one of them", "hidden"
            )
        return self


class Encoder(Section):
    source: Literal["minilm", "hub", "local", "random"]
    name: str | None = None
    revision: str | None = None
    path: str = Field(min_length=1)
    sha256: str | None = None
    random: RandomEncoder

    @model_validator(mode="after")
    def _source_has_its_keys(self) -> "Encoder":
        if self.source == "hub":
            for key, pattern, what in (
                ("name", r"\S+", "a hub's name, such as google-bert/bert-base-uncased"),
                ("revision", r"[0-9a-f]{40}", "a commit of 40 hex digits (branches move)"),
            ):
                value = getattr(self, key)
                if value is None:
                    raise Contradiction(f"hub needs {key} beside it, {what}", "source")
                if not re.fullmatch(pattern, value):
                    raise Contradiction(f"must be {what}, not {value!r}", key)
        for key, sources in ENCODER_KEYS.items():
            if getattr(self, key) is not None and self.source not in sources:
                raise Contradiction(
                    f"source {self.source} has no use for it; remove it, or set source to {' or '.join(sources)}", key
                )
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise Contradiction("must be 64 hex digits, or null", "sha256")
        return self


class Compute(Section):
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "bf16"]
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)]
    cuda_graphs: Literal["auto"] | bool


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
    """Equation 2. `start_from` names the weights to convert: the pretrained encoder or another run's result."""

    method: Literal["dora"]
    rank: int = Field(ge=1, le=4096)
    alpha: Positive
    learning_rate: Positive
    dropout: Probability
    train_rest: bool
    norm_gradient: Literal["exact", "detached"]
    start_from: str


class Model(Section):
    """What a run's model is: how sentences are represented, its heads, and its adapter."""

    pooling: Literal["cls", "mean", "max"]
    encoding: Literal["bi", "cross", "both"]
    quora: Annotated[CosineHead | LinearHead, Field(discriminator="objective")]
    sts: Annotated[CosineEmbedding | Regression, Field(discriminator="objective")]
    encoder_dropout: Probability
    head_dropout: Probability
    seed: Seed
    adapter: Dora | None = None

    @model_validator(mode="after")
    def _no_contradictions(self) -> "Model":
        needed: set[str] = set()
        for name, head in (("quora", self.quora), ("sts", self.sts)):
            features = getattr(head, "features", ["u", "v"])
            if len(set(features)) != len(features):
                raise Contradiction("names a feature twice; remove one", name, "features")
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


class Run(Model):
    """One configuration of the paper: its model, what it is trained on, and for how long."""

    tasks: list[TaskName] = Field(min_length=1)
    sampler: SamplerName | Annotated[float, Field(ge=0, allow_inf_nan=False)]
    epoch_end: EpochEnd
    epochs: Epochs
    batch_size: BatchSize
    learning_rate: Positive

    @model_validator(mode="after")
    def _tasks_differ(self) -> "Run":
        if len(set(self.tasks)) != len(self.tasks):
            raise Contradiction("names a task twice; remove one", "tasks")
        return self


class Budget(Section):
    """What a profile's runs may spend; rates of full fine-tuning, of an adapter's parameters, and of what trains beside an adapter."""

    epochs: Epochs
    epoch_end: EpochEnd
    batch_size: BatchSize
    learning_rate: Positive
    adapter_learning_rate: Positive
    rest_learning_rate: Positive
