"""The documentation: every link leads somewhere, and what docs/paper.md names exists. `make docs` checks the site's menu."""

import ast
import re
import shutil
import subprocess
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from ruamel.yaml import YAML

from mtbert.params import load_params
from tests.examples import renewed, shared
from tests.project import add_settings, commit, keep_runs, must, tiny_project

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
READ = [*PAGES, *ROOT.glob("*.md")]
PAPER = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in (DOCS / "paper.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| \d", line)
]
yaml = YAML(typ="safe")
PARAMS = yaml.load(ROOT / "params.yaml")


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    titles = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


def links(page: Path) -> list[str]:
    tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
    inner = [child for token in tokens for child in token.children or ()]
    return [
        str(child.attrs.get("href") or child.attrs["src"]) for child in inner if child.type in ("link_open", "image")
    ]


@cache
def tracked() -> set[Path]:
    """The files that git tracks, and their folders."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = {ROOT / line for line in listed.splitlines()}
    return files | {parent for file in files for parent in file.parents}


@pytest.mark.parametrize("page", READ, ids=[page.relative_to(ROOT).as_posix() for page in READ])
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        if path.startswith(("https://", "http://")):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target in tracked(), f"{link}: no such file in git"
        assert not anchor or anchor in headings(target), f"{link}: no such heading"


def test_the_site_loads_nothing_from_elsewhere() -> None:
    config = yaml.load(ROOT / "mkdocs.yml")
    assert config["theme"]["font"] is False
    assert not {"extra_javascript", "extra_css"} & config.keys()
    assert not [page for page in PAGES if "```mermaid" in page.read_text(encoding="utf-8")], (
        "Material loads it from unpkg"
    )


def test_the_profiles_of_the_encoder_s_page_are_valid(tmp_path: Path) -> None:
    text = (DOCS / "own-encoder.md").read_text(encoding="utf-8")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        add_settings(tmp_path, block)
    assert load_params(tmp_path / "params.yaml", "mine").encoder.source == "local"
    assert load_params(tmp_path / "params.yaml", "hub").encoder.source == "hub"


@pytest.mark.slow
def test_the_readme_s_commands_work(tmp_path: Path) -> None:
    project = tiny_project(tmp_path / "mtbert")
    keep_runs(project, "baseline", "key_update_1", "key_update_3", "best_performance")
    commit(project, "start")
    must(project, "dvc", "repro")
    commit(project, "results")
    (project / "reviews.txt").write_text("A fine film .\nA dull film .\n", encoding="utf-8")
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Change it, use it\n")[2]
    commands = section.split("```\n")[1].splitlines()
    assert len(commands) > 5
    for command in commands:
        must(project, "bash", "-ec", command)
    assert (project / "labels.csv").read_text(encoding="utf-8").count("film") == 2
    assert list((project / "my-model").rglob("config.json"))


@pytest.mark.slow
def test_the_tutorial_s_commands_work(tmp_path: Path) -> None:
    project = shared(tmp_path / "mtbert")
    text = renewed((DOCS / "tutorial.md").read_text(encoding="utf-8"), project)
    assert "Running stage 'train@mine':" in text
    assert text.count("The ending is wonderful.,") == 1, "a row of predictions"
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert must(project, "python", "-c", code).split()[0] in ("0", "1")


@pytest.mark.parametrize(
    ("code", "setting"), [(row[2], row[3]) for row in PAPER], ids=[f"{r[0]} {r[1]}" for r in PAPER]
)
def test_what_the_paper_s_page_names_exists(code: str, setting: str) -> None:
    for path in re.findall(r"`([\w/]+\.py)`", code):
        assert (ROOT / path).is_file(), path
    for name, path in re.findall(r"`(\w+)` in `([\w/.]+)`", code):
        assert name in defined(ROOT / path), f"{name} in {path}"
    assert "`mtbert/" in code
    for key in re.findall(r"`([\w.]+)`", setting):
        node = PARAMS
        for part in key.split("."):
            assert part in node, key
            node = node[part]


def test_the_paper_s_page_has_every_section() -> None:
    sections = {part.strip() for row in PAPER for part in row[0].split(",") if part.strip()[0].isdigit()}
    assert sections == {
        *("4.1", "4.2", "4.3", "4.4", "4.5", "5.1", "5.2", "5.3", "5.4.1", "5.4.2", "5.4.3", "6.1", "6.2"),
    }


def defined(path: Path) -> set[str]:
    """The names that a module defines."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(target.id for target in targets if isinstance(target, ast.Name))
    return found
