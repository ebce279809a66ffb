"""convert RUN: put the run's adapter into the pretrained encoder and save the new parameters (section 4.5).

Every run has this stage. One without an adapter, or whose adapter starts from the weights of a run that is not trained yet, gets a
config.json that says that there is nothing to load.
"""

from typing import Any

from mtbert.files import atomic_json, replaced_folder
from mtbert.pipeline.paths import CONVERTED, PRETRAINED, confine
from mtbert.pipeline.plans import planned
from mtbert.pipeline.start import start


def main(run_name: str) -> None:
    settings = planned("convert", run_name)["settings"]
    confine(CONVERTED / run_name)
    if settings["model"] is not None:
        return _convert(run_name, settings)
    with replaced_folder(CONVERTED / run_name) as folder:
        atomic_json(folder / "config.json", {"adapter": None})
    print(f"{run_name}: no adapter for the pretrained weights")


def _convert(run_name: str, settings: dict[str, Any]) -> None:
    from mtbert.peft.convert import adapter_state, count_parameters
    from mtbert.pipeline.models import adapt, load_encoder
    from mtbert.pipeline.provenance import weights_of
    from mtbert.pretrained.store import save_model
    from mtbert.settings.run import Model
    from mtbert.training.compute import resolve

    resolve("cpu", "fp32", 1)
    described = Model.model_validate(settings["model"])
    assert described.adapter is not None
    confine(PRETRAINED)
    model = load_encoder(described, f"runs.{run_name}")
    full = count_parameters(model)["total"] or 0
    adapt(model, described, f"runs.{run_name}", initialise=True)
    counts = count_parameters(model)
    for what, count in (("trainable", counts["trainable"]), ("heads and adapters alone", counts["adapters_only"])):
        print(f"{run_name}: {what}: {count:,} of {full:,} parameters ({(count or 0) / full:.1%})")
    with replaced_folder(CONVERTED / run_name) as folder:
        about = {"adapter": described.adapter.model_dump(), "parent": weights_of(PRETRAINED)}
        save_model(folder, adapter_state(model), about)


if __name__ == "__main__":
    start(main)
