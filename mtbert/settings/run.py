"""Settings of a run: its model, the tasks and heads, how it trains, and the budget that a profile gives it."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, SerializerFunctionWrapHandler, Tag, model_serializer, model_validator

from mtbert.errors import nearest
from mtbert.model.pooling import POOLINGS
from mtbert.peft.registry import AnyAdapter, LinearProbe
from mtbert.section import Contradiction, Positive, Probability, Section, one_of
from mtbert.settings.project import Seed
from mtbert.settings.task import DeclaredTask
from mtbert.tasks.objective import CosineEmbedding
from mtbert.tasks.paper import TASKS, known_tasks
from mtbert.tasks.registry import OBJECTIVES, AnyObjective
from mtbert.tasks.task import Task
from mtbert.training.aggregation import AGGREGATIONS
from mtbert.training.optimization import Optimization
from mtbert.training.recipe import FurtherPretraining, TokenCount
from mtbert.training.sampling import SAMPLERS

Epochs = Annotated[int, Field(ge=1, le=1000)]
# A union with tags, so that an error is reported for the kind that was meant, not for each.
EpochEnd = Annotated[
    Annotated[Literal["depletion", "one_pass"] | Annotated[int, Field(ge=1, le=10_000_000)], Tag("steps")]
    | Annotated[TokenCount, Tag("tokens")],
    Discriminator(lambda value: "tokens" if isinstance(value, dict | TokenCount) else "steps"),
]
BatchSize = Annotated[int, Field(ge=1, le=65536)]
# Keys that are left out of a dump while they are off, so that a run without them has the plan that it had before they existed.
DUMPED_IF_SET = (
    "declared",
    "pair_layer",
    "task_weights",
    "uncertainty",
    "r_drop",
    "aggregation",
    "measure_conflicts",
    "further_pretraining",
)


class PairLayer(Section):
    """A layer between the features and the heads that all tasks of pairs share; `size` is its width."""

    size: int = Field(ge=1, le=8192)


class Uncertainty(Section):
    """Task weights that are learned (`mtbert.training.uncertainty`).

    Attributes:
        learning_rate: of the log-variances. AdamW moves one by about this much a step, so they need a higher rate than the encoder.
    """

    learning_rate: Positive = 1e-3


class Model(Section):
    """A run's model: how it represents sentences, its heads by task, and its adapter.

    Attributes:
        pair_layer: the layer below the linear heads of pairs; None for no such layer.
        declared: the declared tasks that the run has a head for; `mtbert.resolve` copies them here.
    """

    pooling: Annotated[str, one_of(POOLINGS)]
    encoding: Literal["bi", "cross", "both"]
    heads: dict[str, AnyObjective] = Field(min_length=1)
    encoder_dropout: Probability
    head_dropout: Probability
    seed: Seed
    adapter: AnyAdapter | None = None
    pair_layer: PairLayer | None = None
    declared: dict[str, DeclaredTask] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _without_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = dump(self)
        return {key: value for key, value in dumped.items() if value or key not in DUMPED_IF_SET}

    @property
    def known(self) -> dict[str, Task]:
        """The tasks that the run has heads for, in the order of heads and metrics."""
        known = known_tasks({name: task.model_dump() for name, task in self.declared.items()})
        return {name: task for name, task in known.items() if name in self.heads}

    @property
    def start_run(self) -> str | None:
        """The run from whose weights the adapter starts; None if it starts from the pretrained encoder, or there is none."""
        return self.adapter.start_from if self.adapter and self.adapter.start_from != "pretrained" else None

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
            only = needed.pop()
            raise ValueError(f"encoding is both, but every feature is {only}-encoded; set encoding: {only}")
        if self.pair_layer is not None:
            pairs = [name for name, task in self.known.items() if task.is_pair and self.heads[name].head == "linear"]
            _check_pair_layer({name: list(self.heads[name].inputs) for name in pairs})
        return self


def _check_pair_layer(features: dict[str, list[str]]) -> None:
    """Check the features, by task, of the heads over the pair layer."""
    if not features:
        raise Contradiction(
            "no task of pairs has a linear head; give one `features`, or remove pair_layer", "pair_layer"
        )
    first, *others = features
    for name in others:
        if features[name] != features[first]:
            raise Contradiction(
                f"must be {', '.join(features[first])}, as those of {first}: with pair_layer all tasks of pairs have the same; "
                "change them, or remove pair_layer",
                *("heads", name, "features"),
            )


def _check_objective(task: Task, head: AnyObjective) -> None:
    where = ("heads", task.name)
    if task.kind not in head.kinds:
        fitting = " or ".join(name for name, other in OBJECTIVES.items() if task.kind in other.kinds)
        raise Contradiction(
            f"{head.objective} does not fit {task.name}, whose labels are of kind {task.kind}; set it to {fitting}",
            *(*where, "objective"),
        )
    if len(set(head.inputs)) != len(head.inputs):
        raise Contradiction("a feature is listed twice; remove one", *where, "features")
    if not task.is_pair and list(head.inputs) != ["u"]:
        key = "features" if head.head == "linear" else "objective"
        inputs = ", ".join(head.inputs)
        raise Contradiction(
            f"uses {inputs}, but an example of {task.name} is one sentence; only u can be used", *where, key
        )
    if isinstance(head, CosineEmbedding) and not task.low < head.threshold <= task.high:
        raise Contradiction(
            f"must be above {task.low:g} and at most {task.high:g}, the range of {task.name}, not {head.threshold:g}",
            *(*where, "threshold"),
        )


class Run(Model):
    """A run: its model, the tasks it is trained on, sampler, budget and, unless it is the paper's, optimization and losses.

    Attributes:
        task_weights: factors of the tasks' losses; a task that is not named has the factor 1, and with None all have.
        uncertainty: how the factors are learned; None if they are not.
        r_drop: α of `mtbert.training.task_losses.with_r_drop`; None for one pass a step.
        aggregation: how the tasks' gradients become one, for the joint sampler alone; None means mean.
        measure_conflicts: the number of steps between two measurements of the tasks' gradients; None makes none.
        further_pretraining: how the encoder is first trained on the tasks' text; None if it is not.
    """

    tasks: list[str] = Field(min_length=1)
    sampler: Annotated[str, one_of(SAMPLERS)] | Annotated[float, Field(ge=0, allow_inf_nan=False)]
    epoch_end: EpochEnd
    epochs: Epochs
    batch_size: BatchSize
    learning_rate: Positive
    optimization: Optimization | None = None
    task_weights: dict[str, Positive] | None = None
    uncertainty: Uncertainty | None = None
    r_drop: Positive | None = None
    aggregation: Annotated[str, one_of(AGGREGATIONS)] | None = None
    measure_conflicts: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    further_pretraining: FurtherPretraining | None = None

    @property
    def passes(self) -> int:
        """How many times a step passes a batch through the model."""
        return 1 if self.r_drop is None else 2

    @model_validator(mode="after")
    def _several_gradients(self) -> "Run":
        if self.aggregation is not None and self.sampler != "joint":
            raise Contradiction(
                f"only a step with a batch of every task has gradients to aggregate, but sampler is {self.sampler}; set "
                "sampler: joint, or aggregation: null",
                "aggregation",
            )
        if self.measure_conflicts is not None and len(self.tasks) < 2:
            raise Contradiction(
                "the gradients of two tasks or more are compared, but the run has one; set it to null, or add a task",
                "measure_conflicts",
            )
        for key in ("aggregation", "measure_conflicts"):
            if getattr(self, key) is not None and self.adapter is not None and not self.adapter.trains_shared:
                raise Contradiction(
                    f"with {self.adapter.method} no parameter of the encoder trains that the tasks share; set it to null",
                    key,
                )
        return self

    @model_validator(mode="after")
    def _has_an_effect_with_the_adapter(self) -> "Run":
        if self.further_pretraining is not None and self.adapter is not None:
            raise Contradiction(
                "trains the encoder's own weights, which an adapter keeps as they are; set it or adapter to null",
                "further_pretraining",
            )
        rate = self.optimization.head_learning_rate if self.optimization else None
        if isinstance(self.adapter, LinearProbe) and rate is not None:
            raise Contradiction(
                "the heads of a linear probe train at adapter.learning_rate; set it to null",
                *("optimization", "head_learning_rate"),
            )
        return self

    @model_validator(mode="after")
    def _tasks_have_heads(self) -> "Run":
        if len(set(self.tasks)) != len(self.tasks):
            raise Contradiction("a task is listed twice; remove one", "tasks")
        for number, name in enumerate(self.tasks):
            if name not in self.heads:
                raise Contradiction(
                    f"{name!r} has no head{nearest(name, list(self.heads))}; give it one under heads, or remove it",
                    *("tasks", str(number)),
                )
            if isinstance(self.adapter, LinearProbe) and self.heads[name].head != "linear":
                raise Contradiction(
                    f"the head of {name} has no weights, so a linear probe has nothing to train for it; give the head another "
                    "objective, or remove the task here",
                    *("tasks", str(number)),
                )
            if self.batch_size == 1 and not self.heads[name].mean_of_examples:
                raise Contradiction(
                    f"is 1, but {self.heads[name].objective}, the objective of {name}, compares the examples of a batch; set it to at "
                    "least 2, or choose another objective",
                    "batch_size",
                )
        return self

    @model_validator(mode="after")
    def _losses_agree(self) -> "Run":
        for name in self.task_weights or {}:
            if name not in self.tasks:
                raise Contradiction(
                    f"{name!r} is not a task of this run{nearest(name, self.tasks)}; correct the name, or remove it",
                    *("task_weights", name),
                )
        if self.task_weights and self.uncertainty is not None:
            raise Contradiction("the weights are learned by uncertainty; remove one of the two keys", "task_weights")
        heads = self.head_dropout if any(self.heads[name].head == "linear" for name in self.tasks) else 0.0
        if self.r_drop is not None and self.encoder_dropout == heads == getattr(self.adapter, "dropout", 0.0) == 0:
            raise Contradiction(
                "needs dropout, which makes the two passes differ; set encoder_dropout or head_dropout, or remove it",
                "r_drop",
            )
        return self


class Budget(Section):
    """Defaults of a profile's runs. `learning_rate` is for full fine-tuning, `adapter_learning_rate` for an adapter's parameters,
    `rest_learning_rate` for the other parameters that train with an adapter."""

    epochs: Epochs
    epoch_end: EpochEnd
    batch_size: BatchSize
    learning_rate: Positive
    adapter_learning_rate: Positive
    rest_learning_rate: Positive
