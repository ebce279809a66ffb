"""convert RUN: swap the linear layers of a built, loaded model for the run's adapter (section 4.5)."""

from mtbert.errors import MtbertError
from mtbert.files import replaced_folder
from mtbert.model.store import save_model
from mtbert.model.weights import config_to_json
from mtbert.params import load_params
from mtbert.peft.convert import count_parameters
from mtbert.training.compute import resolve
from stages.common import CONVERTED, MODELS, PRETRAINED, confine, start
from stages.models import adapt, load_encoder, load_run, weights_of
from stages.provenance import origin, write_beside


def main(run_name: str) -> None:
    params = load_params()
    run = params.run(run_name)
    if run.adapter is None:
        raise MtbertError(f"params.yaml: runs.{run_name}.adapter is null; there is nothing to convert")
    compute = resolve("cpu", "fp32", 1)
    parent = MODELS / run.adapter.start_from
    confine(parent, CONVERTED / run_name)
    model = load_encoder(run, parent) if parent == PRETRAINED else load_run(params.run(run.adapter.start_from), parent)
    full = count_parameters(model)["total"] or 0
    adapt(model, run)
    counts = count_parameters(model)
    for what, count in (("trainable here", counts["trainable"]), ("heads and adapters alone", counts["adapters_only"])):
        print(f"{run_name}: {what}: {count:,} of {full:,} parameters ({(count or 0) / full:.1%})")
    with replaced_folder(CONVERTED / run_name) as folder:
        config = {"encoder": config_to_json(model.encoder.config), "settings": run.model_dump(), "parameters": counts}
        save_model(folder, model.state_dict(), config)
    made = weights_of(CONVERTED / run_name)
    about = {"parent": weights_of(parent), "weights": made["sha256"], **compute.describe()}
    write_beside(CONVERTED / run_name, origin(f"convert {run_name}", run.model_dump(), **about))


if __name__ == "__main__":
    start(main)
