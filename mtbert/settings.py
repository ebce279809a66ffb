"""Every setting of a stage, typed and strict; `mtbert.params` puts them together from params.yaml, a plan file holds them resolved."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from mtbert.errors import nearest
from mtbert.model.pooling import POOLINGS
from mtbert.peft.registry import AnyAdapter
from mtbert.section import Contradiction, Positive, Probability, Section, one_of
from mtbert.tasks.objective import OBJECTIVES, AnyObjective, CosineEmbedding
from mtbert.tasks.paper import TASKS, known_tasks
from mtbert.tasks.task import Kind, Task
from mtbert.training.sampling import SAMPLERS

# Which kind of label an optional key of a declared task belongs to, and what that kind needs.
KIND_KEYS = {"classes": "classes", "low": "score", "high": "score"}
KIND_NEEDS = {"classes": "their names as the files spell them", "score": "the ends of its range"}
# Which sources an optional key of the encoder belongs to.
ENCODER_KEYS = {"name": ["hub"], "revision": ["hub"], "sha256": ["minilm", "hub", "local"]}

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Epochs = Annotated[int, Field(ge=1, le=1000)]
EpochEnd = Literal["depletion"] | Annotated[int, Field(ge=1, le=10_000_000)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
BatchSize = Annotated[int, Field(ge=1, le=65536)]
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


class DeclaredTask(Section):
    """A task of one's own: the columns of its files, and what its labels are."""

    texts: list[str] = Field(min_length=1, max_length=2)
    label: str = Field(min_length=1)
    kind: Kind
    classes: list[str] | None = None
    low: Finite | None = None
    high: Finite | None = None

    @model_validator(mode="after")
    def _kind_has_its_keys(self) -> "DeclaredTask":
        columns = [*self.texts, self.label]
        for number, name in enumerate(columns):
            if not name.strip() or name == "id" or name in columns[:number]:
                raise Contradiction(
                    f"{name!r} cannot be the name of this column; columns have names of their own, other than id",
                    *(("texts", str(number)) if number < len(self.texts) else ("label",)),
                )
        for key, kind in KIND_KEYS.items():
            value = getattr(self, key)
            if value is not None and kind != self.kind:
                raise Contradiction(f"kind {self.kind} has no use for it; remove it, or set kind: {kind}", key)
            if value is None and kind == self.kind:
                raise Contradiction(f"{kind} needs {key} beside it, {KIND_NEEDS[kind]}", "kind")
        if self.classes is not None:
            if len(self.classes) < 2:
                raise Contradiction("has fewer than two classes; name them all", "classes")
            for number, name in enumerate(self.classes):
                if name != name.strip() or not name:
                    raise Contradiction(
                        f"{name!r} is empty, or starts or ends with a blank; rename it", "classes", str(number)
                    )
                if name in self.classes[:number]:
                    raise Contradiction(f"names {name!r} twice; remove one", "classes")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise Contradiction(f"must be above low, which is {self.low:g}", "high")
        return self


class Model(Section):
    """What a run's model is: how sentences are represented, its heads by task, and its adapter.

    Attributes:
        declared: of the tasks that params.yaml declares those that the run has a head for; `mtbert.resolve` puts them here.
    """

    pooling: Annotated[str, one_of(POOLINGS)]
    encoding: Literal["bi", "cross", "both"]
    heads: dict[str, AnyObjective] = Field(min_length=1)
    encoder_dropout: Probability
    head_dropout: Probability
    seed: Seed
    adapter: AnyAdapter | None = None
    declared: dict[str, DeclaredTask] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _without_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A run without declared tasks is dumped as params.yaml has it."""
        dumped: dict[str, Any] = dump(self)
        return dumped if dumped.get("declared") else {key: dumped[key] for key in dumped if key != "declared"}

    @property
    def known(self) -> dict[str, Task]:
        """The tasks that the run has heads for, in the order in which heads are built and metrics are listed."""
        known = known_tasks({name: task.model_dump() for name, task in self.declared.items()})
        return {name: task for name, task in known.items() if name in self.heads}

    @model_validator(mode="after")
    def _no_contradictions(self) -> "Model":
        needed: set[str] = set()
        for name, head in self.heads.items():
            if name not in self.known:
                raise Contradiction(
                    f"no task is called {name!r}{nearest(name, list(TASKS))}; declare it under tasks, or remove its head",
                    *("heads", name),
                )
            task = self.known[name]
            _check_objective(task, head)
            if not task.is_pair:
                continue
            needs = {"cross" if feature == "c" else "bi" for feature in head.inputs}
            if self.encoding != "both" and needs != {self.encoding}:
                raise ValueError(
                    f"{name} uses {', '.join(head.inputs)}, which needs encoding: "
                    f"{'both' if len(needs) == 2 else next(iter(needs))}, but encoding is {self.encoding}"
                )
            needed |= needs
        if self.encoding == "both" and len(needed) == 1:
            raise ValueError(
                f"encoding is both, but every feature is {needed.pop()}-encoded; say encoding: bi or cross"
            )
        return self


def _check_objective(task: Task, head: AnyObjective) -> None:
    where = ("heads", task.name)
    if task.kind not in head.kinds:
        fitting = " or ".join(name for name, other in OBJECTIVES.items() if task.kind in other.kinds)
        raise Contradiction(
            f"{head.objective} does not fit {task.name}, whose kind of label is {task.kind}; set it to {fitting}",
            *(*where, "objective"),
        )
    if len(set(head.inputs)) != len(head.inputs):
        raise Contradiction("names a feature twice; remove one", *where, "features")
    if not task.is_pair and list(head.inputs) != ["u"]:
        key = "features" if head.head == "linear" else "objective"
        raise Contradiction(
            f"an example of {task.name} is one sentence, u; a head can look at nothing else", *where, key
        )
    if isinstance(head, CosineEmbedding) and not task.low < head.threshold <= task.high:
        raise Contradiction(
            f"must be above {task.low:g} and at most {task.high:g}, the range of {task.name}, not {head.threshold:g}",
            *(*where, "threshold"),
        )


class Run(Model):
    """One configuration of the paper: its model, what it is trained on, and for how long."""

    tasks: list[str] = Field(min_length=1)
    sampler: Annotated[str, one_of(SAMPLERS)] | Annotated[float, Field(ge=0, allow_inf_nan=False)]
    epoch_end: EpochEnd
    epochs: Epochs
    batch_size: BatchSize
    learning_rate: Positive

    @model_validator(mode="after")
    def _tasks_have_heads(self) -> "Run":
        if len(set(self.tasks)) != len(self.tasks):
            raise Contradiction("names a task twice; remove one", "tasks")
        for number, name in enumerate(self.tasks):
            if name not in self.heads:
                raise Contradiction(
                    f"{name!r} has no head{nearest(name, list(self.heads))}; give it one under heads, or remove it",
                    *("tasks", str(number)),
                )
        return self


class Budget(Section):
    """What a profile's runs may spend; rates of full fine-tuning, of an adapter's parameters, and of what trains beside an adapter."""

    epochs: Epochs
    epoch_end: EpochEnd
    batch_size: BatchSize
    learning_rate: Positive
    adapter_learning_rate: Positive
    rest_learning_rate: Positive
