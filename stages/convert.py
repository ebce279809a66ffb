"""convert RUN: put the run's adapter into its initial model and save the new parameters (section 4.5).

A run without an adapter gets a config.json that says so, since every run has this stage.
"""

from typing import Any

from mtbert.files import atomic_json, replaced_folder
from mtbert.pipeline.paths import CONVERTED, MODELS, PRETRAINED, confine
from mtbert.pipeline.plans import planned
from mtbert.pipeline.start import start


def main(run_name: str) -> None:
    settings = planned("convert", run_name)["settings"]
    confine(CONVERTED / run_name)
    if settings["model"] is not None:
        return _convert(run_name, settings)
    with replaced_folder(CONVERTED / run_name) as folder:
        atomic_json(folder / "config.json", {"adapter": None})
    print(f"{run_name}: no adapter")


def _convert(run_name: str, settings: dict[str, Any]) -> None:
    from mtbert.peft.convert import adapter_state, count_parameters
    from mtbert.pipeline.models import adapt, load_encoder, load_run, weights_of
    from mtbert.pipeline.provenance import check_current
    from mtbert.pretrained.store import save_model
    from mtbert.settings.run import Model, Run
    from mtbert.training.compute import resolve

    resolve("cpu", "fp32", 1)
    described = Model.model_validate(settings["model"])
    assert described.adapter is not None
    pretrained = described.adapter.start_from == "pretrained"
    parent = PRETRAINED if pretrained else MODELS / described.adapter.start_from
    confine(parent)
    if pretrained:
        model = load_encoder(described, f"runs.{run_name}")
    else:
        check_current(described.adapter.start_from, f"runs.{run_name}.adapter.start_from")
        model = load_run(Run.model_validate(settings["start_run"]), described.adapter.start_from)
    full = count_parameters(model)["total"] or 0
    adapt(model, described, f"runs.{run_name}", initialise=True)
    counts = count_parameters(model)
    for what, count in (("trainable", counts["trainable"]), ("heads and adapters alone", counts["adapters_only"])):
        print(f"{run_name}: {what}: {count:,} of {full:,} parameters ({(count or 0) / full:.1%})")
    with replaced_folder(CONVERTED / run_name) as folder:
        # A trained run's weights are all saved; the pretrained ones are in a folder of their own.
        tensors = adapter_state(model) if pretrained else model.state_dict()
        save_model(folder, tensors, {"adapter": described.adapter.model_dump(), "parent": weights_of(parent)})


if __name__ == "__main__":
    start(main)
