"""table NAME: a table of the paper with our numbers beside, as CSV, Markdown and LaTeX."""

from mtbert.errors import MtbertError
from mtbert.files import atomic_write_text
from mtbert.params import load_params, nearest
from mtbert.report.tables import TABLES
from mtbert.report.text import to_csv, to_latex, to_markdown
from stages.common import RESULTS, confine, inside, start


def main(name: str) -> None:
    confine(RESULTS)
    folder = inside(load_params().report.folder, "report.folder") / "tables"
    if name not in TABLES:
        raise MtbertError(f"no table is called {name!r}{nearest(name, list(TABLES))}")
    table = TABLES[name](RESULTS)
    for ending, write in (("csv", to_csv), ("md", to_markdown), ("tex", to_latex)):
        atomic_write_text(folder / f"{name}.{ending}", write(table))
    print(f"{folder / name}.csv, .md, .tex")


if __name__ == "__main__":
    start(main)
