"""convert RUN: swap the linear layers of a built, loaded model for the run's adapter (section 4.5)."""

from mtbert.errors import MtbertError
from mtbert.files import replaced_folder
from mtbert.model.store import save_model
from mtbert.model.weights import config_to_json
from mtbert.params import load_params
from mtbert.peft.convert import count_parameters
from stages.common import CONVERTED, MODELS, PRETRAINED, start
from stages.models import adapt, load_encoder, load_run


def main(run_name: str) -> None:
    params = load_params()
    run = params.run(run_name)
    if run.adapter is None:
        raise MtbertError(f"params.yaml: runs.{run_name}.adapter is null; there is nothing to convert")
    if run.adapter.start_from == "pretrained":
        model = load_encoder(run, PRETRAINED)
    else:
        model = load_run(params.run(run.adapter.start_from), MODELS / run.adapter.start_from)
    full = count_parameters(model)["total"] or 0
    adapt(model, run)
    counts = count_parameters(model)
    for what, count in (("trainable here", counts["trainable"]), ("heads and adapters alone", counts["adapters_only"])):
        print(f"{run_name}: {what}: {count:,} of {full:,} parameters ({(count or 0) / full:.1%})")
    with replaced_folder(CONVERTED / run_name) as folder:
        config = {"encoder": config_to_json(model.encoder.config), "settings": run.model_dump(), "parameters": counts}
        save_model(folder, model.state_dict(), config)


if __name__ == "__main__":
    start(main)
