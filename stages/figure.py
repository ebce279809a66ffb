"""figure NAME: a figure of the paper from our results, as PNG and SVG, and its data as CSV."""

from mtbert.errors import MtbertError
from mtbert.params import load_params, nearest
from mtbert.report.figures import FIGURES, render
from stages.common import RESULTS, confine, inside, start


def main(name: str) -> None:
    confine(RESULTS)
    stem = inside(load_params().report.folder, "report.folder") / "figures" / name
    if name not in FIGURES:
        raise MtbertError(f"no figure is called {name!r}{nearest(name, list(FIGURES))}")
    render(FIGURES[name](RESULTS), stem)
    print(f"{stem}.png, .svg, .csv")


if __name__ == "__main__":
    start(main)
