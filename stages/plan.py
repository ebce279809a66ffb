"""plan: resolve params.yaml into one file for each stage and run: its settings, and the checksums of its code.

Every later stage depends on its own file and reads nothing else of params.yaml, so an edit re-runs exactly what it
reaches.
"""

from mtbert.params import load_params
from mtbert.pipeline.planning import refresh
from mtbert.pipeline.plans import PLAN
from mtbert.pipeline.start import start


def main() -> None:
    params = load_params()
    refresh(params)
    print(f"{PLAN}: profile {params.profile}, {len(params.runs)} runs")


if __name__ == "__main__":
    start(main)
