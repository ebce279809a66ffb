"""The objectives that a head in params.yaml can name. To add one, write a class and add it to `AnyObjective`."""

from typing import Annotated, get_args

from pydantic import Field

from mtbert.tasks.correlation import CoSent, CosineCoSent, Pearson
from mtbert.tasks.objective import (
    BinaryCrossEntropy,
    Cosine,
    CosineEmbedding,
    CrossEntropy,
    MeanSquaredError,
    Objective,
)
from mtbert.tasks.ordinal import Corn

AnyObjective = Annotated[
    CrossEntropy
    | Corn
    | BinaryCrossEntropy
    | Cosine
    | MeanSquaredError
    | Pearson
    | CoSent
    | CosineEmbedding
    | CosineCoSent,
    Field(discriminator="objective"),
]
OBJECTIVES: dict[str, type[Objective]] = {
    get_args(kind.model_fields["objective"].annotation)[0]: kind for kind in get_args(get_args(AnyObjective)[0])
}
