"""Find the files that a module imports, directly or indirectly, by parsing the sources; nothing is imported."""

import ast
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from mtbert.errors import MtbertError

PACKAGES = ("mtbert", "stages")


class Source(NamedTuple):
    """What counts in a source file.

    Attributes:
        imports: for each import statement the number of leading dots, the module, and the names taken from it.
        strings: all constant strings.
    """

    imports: frozenset[tuple[int, str, tuple[str, ...]]]
    strings: frozenset[str]


def modules(root: Path) -> dict[str, Path]:
    """Every module of the project's packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _read(path: Path) -> Source:
    """What counts in a file's source.

    Raises:
        MtbertError: the file is not valid Python.
    """
    try:
        return _parsed(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise MtbertError(f"{path}{line}: not valid Python ({error}); correct it") from None


def imports(paths: dict[str, Path]) -> dict[str, set[str]]:
    """The import graph: the dotted names that each of the modules imports."""
    return {name: _imported(name, path) for name, path in paths.items()}


def _imported(name: str, path: Path) -> set[str]:
    """Dotted names that a module imports, inside functions too. `from a import b` gives a and a.b, since b may be a module."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for level, base, names in _read(path).imports:
        start = package[: len(package) - level + 1] if level else []
        whole = ".".join([*start, *filter(None, [base])])
        found.update([whole, *(f"{whole}.{one}" for one in names)])
    return found


def closure(start: str, graph: dict[str, set[str]]) -> set[str]:
    """The project's modules that importing `start` can load, parent packages included."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in graph and name not in seen:
            seen.add(name)
            waiting.extend(graph[name])
            waiting.extend(name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1))
    return seen


def code_of_stages(root: Path) -> dict[str, list[str]]:
    """The files that each stage can run, by the stage's name; paths are relative to `root` and sorted.

    A stage is a module of `stages` that imports `start`.
    """
    paths = modules(root)
    graph = imports(paths)
    files = {name: _files_of(root, path) for name, path in paths.items()}
    return {
        name.partition(".")[2]: sorted(set().union(*(files[part] for part in closure(name, graph))))
        for name, targets in graph.items()
        if name.startswith("stages.") and "mtbert.pipeline.start.start" in targets
    }


def _files_of(root: Path, path: Path) -> set[str]:
    """The module's file, and the data files in its folder that it names."""
    strings = _read(path).strings
    beside = {p for p in path.parent.iterdir() if p.is_file() and p.suffix not in (".py", ".pyc") and p.name in strings}
    return {p.relative_to(root).as_posix() for p in {path, *beside}}


# Commands and tests ask for the plan again and again, and a file is parsed once.
@lru_cache(maxsize=1024)
def _parsed(source: bytes) -> Source:
    found, strings = set[tuple[int, str, tuple[str, ...]]](), set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update((0, alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add((node.level, node.module or "", tuple(alias.name for alias in node.names)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.add(node.value)
        elif isinstance(node, ast.Call):
            # `importlib.import_module` or the name alone
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__"):
                named = [one.value for one in node.args[:1] if isinstance(one, ast.Constant)]
                found.update((0, one, ()) for one in named if isinstance(one, str))
    return Source(frozenset(found), frozenset(strings))
