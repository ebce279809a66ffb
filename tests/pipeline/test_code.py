"""The files that a stage runs, in a small made-up project."""

from pathlib import Path

import pytest

from mtbert.errors import MtbertError
from mtbert.pipeline.code import code_of_stages, imports, modules

PROJECT = {
    "mtbert/__init__.py": "",
    "mtbert/alone.py": "import mtbert.data.tasks",
    "mtbert/errors.py": "",
    "mtbert/data/__init__.py": "",
    "mtbert/data/tasks.py": "from mtbert.errors import MtbertError",
    "mtbert/model/__init__.py": "",
    "mtbert/model/bert.py": "import torch\n\ndef build():\n    from ..data import tasks\n    return tasks",
    "mtbert/report/__init__.py": "",
    "mtbert/report/page.py": "TEMPLATE = 'page.j2'",
    "mtbert/report/page.j2": "<html>",
    "mtbert/report/other.j2": "<html>",
    "stages/__init__.py": "",
    "mtbert/pipeline/__init__.py": "",
    "mtbert/pipeline/start.py": "def start(main): main()",
    "mtbert/pipeline/models.py": "from mtbert.model.bert import build",
    "stages/train.py": "from mtbert.pipeline.start import start\nfrom mtbert.pipeline.models import build\nstart(build)",
    "stages/report.py": "import importlib\nfrom mtbert.pipeline.start import start\nimportlib.import_module('mtbert.report.page')",
}
SHARED = ["mtbert/__init__.py", "stages/__init__.py", "mtbert/pipeline/__init__.py", "mtbert/pipeline/start.py"]
TRAIN = ["mtbert/data/__init__.py", "mtbert/data/tasks.py", "mtbert/errors.py", "mtbert/model/__init__.py"]
TRAIN += ["mtbert/model/bert.py", "mtbert/pipeline/models.py", "stages/train.py"]
REPORT = ["mtbert/report/__init__.py", "mtbert/report/page.j2", "mtbert/report/page.py", "stages/report.py"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_stage_s_code_is_its_transitive_imports(root: Path) -> None:
    assert code_of_stages(root) == {"train": sorted(SHARED + TRAIN), "report": sorted(SHARED + REPORT)}


@pytest.mark.parametrize(
    "line",
    [
        "import mtbert.alone",
        "from mtbert import alone",
        "from mtbert.alone import anything",
        "from .. import alone",
        "from ..alone import anything",
        "def later():\n    import mtbert.alone as a",
        "import importlib\nimportlib.import_module('mtbert.alone')",
        "__import__('mtbert.alone')",
        "try:\n    import nothing\nexcept ImportError:\n    from mtbert import alone",
    ],
)
def test_every_way_to_import_counts(root: Path, line: str) -> None:
    with (root / "mtbert/model/bert.py").open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    found = code_of_stages(root)
    assert found["train"] == sorted([*SHARED, *TRAIN, "mtbert/alone.py"])
    assert found["report"] == sorted(SHARED + REPORT)


def test_a_name_in_a_comment_is_not_an_import(root: Path) -> None:
    with (root / "mtbert/model/bert.py").open("a", encoding="utf-8") as file:
        file.write("\n# import mtbert.alone\nTEXT = 'import mtbert.alone'\n")
    assert code_of_stages(root)["train"] == sorted(SHARED + TRAIN)


def test_an_edit_of_a_cached_file_is_seen(root: Path) -> None:
    assert imports(modules(root))["mtbert.errors"] == set()
    (root / "mtbert/errors.py").write_text("import mtbert.data", encoding="utf-8")
    assert imports(modules(root))["mtbert.errors"] == {"mtbert.data"}


@pytest.mark.parametrize(("content", "line"), [(b"x = 1\ndef f(:\n", ":2"), (b"x = '\xff'\n", ""), (b"\0", "")])
def test_a_file_that_is_not_python_is_named(root: Path, content: bytes, line: str) -> None:
    (root / "mtbert/data/tasks.py").write_bytes(content)
    with pytest.raises(MtbertError, match=rf"mtbert/data/tasks\.py{line}.*: not valid Python \(.*\); correct it"):
        code_of_stages(root)
