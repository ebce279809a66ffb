"""Settings of the project: data, preparation, encoder, machine, and what the stages take under another engine."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mtbert.section import Contradiction, Probability, Section

# The sources that each optional key of the encoder is for.
ENCODER_KEYS = {"name": ["hub"], "revision": ["hub"], "sha256": ["minilm", "hub", "local"]}
# What huggingface_hub accepts.
HUB_NAME = r"(?a)(?!.*(--|\.\.|\.git$))(\w[\w.-]{,95}\b/)?\w[\w.-]{,95}\b"

Seed = Annotated[int, Field(ge=0, lt=2**32)]
SplitSize = Annotated[int, Field(ge=8, le=1_000_000)]


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
    """The default data: generated English, a pure function of these keys."""

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
    """Size of a randomly initialised encoder, for tests and throughput."""

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
                ("name", HUB_NAME, "a hub's name, such as google-bert/bert-base-uncased"),
                ("revision", r"[0-9a-f]{40}", "a commit of 40 hex digits (branches move)"),
            ):
                value = getattr(self, key)
                if value is None:
                    raise Contradiction(f"hub needs {key}, {what}; add it", "source")
                if not re.fullmatch(pattern, value):
                    raise Contradiction(f"must be {what}, not {value!r}", key)
        for key, sources in ENCODER_KEYS.items():
            if getattr(self, key) is not None and self.source not in sources:
                raise Contradiction(
                    f"source {self.source} does not use it; remove it, or set source to {' or '.join(sources)}", key
                )
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise Contradiction("must be 64 hex digits, or null", "sha256")
        return self


class ComputeSettings(Section):
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "bf16"]
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)]
    cuda_graphs: Literal["auto"] | bool


class Resources(Section):
    """What a stage takes when Snakemake runs several at once; its CPU threads are those of `compute.threads`.

    Attributes:
        gpus: None means one for a stage that trains or predicts, if `compute.device` gives it a GPU.
        memory_mb: main memory in MB; None leaves it to Snakemake.
        minutes: the time limit that a cluster is asked for; None leaves it to the cluster.
    """

    gpus: Annotated[int, Field(ge=0, le=1024)] | None = None
    memory_mb: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    minutes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class Workflow(Section):
    """The resources of each stage. No stage reads them, so an edit re-runs nothing."""

    fetch: Resources = Resources()
    encoder: Resources = Resources()
    prepare: Resources = Resources()
    convert: Resources = Resources()
    train: Resources = Resources()
    evaluate: Resources = Resources()
    statistics: Resources = Resources()
    table: Resources = Resources()
    figure: Resources = Resources()
    report: Resources = Resources()
