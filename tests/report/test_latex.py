"""The LaTeX tables compile in a plain article, within its text width, whatever a cell contains."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mtbert.report.statistics import Statistics
from mtbert.report.tables import TABLES
from mtbert.report.text import Math, Table, to_latex
from tests.report.conftest import HOSTILE, ROWS

TEX = shutil.which("pdflatex")
needs_tex = pytest.mark.skipif(
    TEX is None, reason="no pdflatex; Debian has it in texlive-latex-base and texlive-latex-recommended"
)


def compiled(folder: Path, *tables: str) -> str:
    """The log of pdfLaTeX; fails if the article does not compile."""
    folder.mkdir(exist_ok=True)
    packages = "\\usepackage{booktabs,graphicx,tabularx}"
    body = "\n".join(tables)
    (folder / "x.tex").write_text(
        f"\\documentclass{{article}}\n{packages}\n\\begin{{document}}\n{body}\\end{{document}}\n", encoding="utf-8"
    )
    assert TEX
    command = [TEX, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "x.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)
    log = (folder / "x.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, log[-2000:]
    return log


@needs_tex
def test_every_table_fits(results: Path, tmp_path: Path, statistics: Statistics) -> None:
    log = compiled(tmp_path, *(to_latex(make(results, ROWS[name], statistics)) for name, make in TABLES.items()))
    assert not re.findall("Overfull.*", log)
    labels = (tmp_path / "x.aux").read_text(encoding="utf-8")
    assert all(f"newlabel{{tab:{name}}}" in labels for name in TABLES)


@needs_tex
def test_any_text_compiles_and_fits(tmp_path: Path) -> None:
    texts = [
        *HOSTILE,
        "x" * 300,
        "https://a.example/" + "path/" * 40,
        "東京 タワー" * 9,
        "W" * 50,
        "Performance–Most leaderboard's (representations, “concatenations”: extraordinarily-international",
        "Ĳ ŉ Đ þ « „ ą é ș ☃ 👩‍👩‍👧",
        "",
    ]
    long = Table("c", ("a", "b", "c"), [(text, text, "-1.5") for text in texts], texts, (False, False, True))
    wide = Table("c", tuple("abcdefgh"), [("word " * 5,) * 8, (Math("(|u+v|)"),) * 8], [], (False,) * 8)
    assert not re.findall("Overfull.*", compiled(tmp_path, to_latex(long), to_latex(wide)))


@needs_tex
def test_the_check_notices_a_table_that_is_too_wide(tmp_path: Path) -> None:
    wide = to_latex(Table("c", tuple("abcdefgh"), [("word " * 5,) * 8], [], (False,) * 8))
    assert "Overfull" in compiled(tmp_path, wide.replace("\\resizebox{\\linewidth}{!}", ""))
