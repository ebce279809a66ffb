"""study: resolve a study's params.yaml over the project's, as `plan` does for the project; run in the study's folder."""

from pathlib import Path

from mtbert.pipeline.planning import refresh_study
from mtbert.pipeline.plans import PLAN
from mtbert.pipeline.start import start

PROJECT = Path("../..")  # from studies/NAME


def main() -> None:
    params = refresh_study(Path(), PROJECT)
    print(f"{PLAN}: profile {params.profile}, {len(params.runs)} runs")


if __name__ == "__main__":
    start(main)
