"""study: resolve a study's params.yaml over the project's, as `plan` does for the project; run in the study's folder."""

from pathlib import Path

from mtbert.params import PARAMS_FILE, load_study
from mtbert.pipeline.planning import refresh_study
from mtbert.pipeline.plans import PLAN
from mtbert.pipeline.start import start

PROJECT = Path("../..")  # from studies/NAME


def main() -> None:
    params = load_study(PARAMS_FILE, PROJECT / PARAMS_FILE)
    refresh_study(params, PROJECT)
    print(f"{PLAN}: profile {params.profile}, {len(params.runs)} runs")


if __name__ == "__main__":
    start(main)
