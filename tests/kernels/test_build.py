"""Compiling: once, into a place of our own, whole or not at all; and a clear word where there is no compiler."""

import ctypes
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mtbert.kernels import build
from mtbert.kernels.build import Unavailable

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

STAND_IN = '#include <cstdint>\nextern "C" void answer(int64_t* out) { *out = 42; }\n'
LETTERS = {"int": "i", "int64_t": "l", "float": "f"}


def forget() -> None:
    for cached in (build.library, build.unavailable, build.compiler):
        cached.cache_clear()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new cache and a new temporary folder; gives the cache's."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    forget()
    yield tmp_path / "cache" / "mtbert"
    forget()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source that compiles in a moment."""
    path = tmp_path / "kernels.cpp"
    path.write_text(STAND_IN)
    monkeypatch.setattr(build, "SOURCE", path)
    monkeypatch.setattr(build, "PLAIN", {"answer": "p"})
    monkeypatch.setattr(build, "TYPED", {})
    return path


def answer() -> int:
    out = ctypes.c_int64(0)
    build.library().answer(ctypes.addressof(out))
    return out.value


def compiled(folder: Path) -> list[Path]:
    assert {path.suffix for path in folder.iterdir()} <= {".so"}, "nothing else is left"
    return sorted(folder.iterdir())


def impostor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, interpreter: str = "/bin/sh") -> None:
    """A g++ of ours is the only program on the PATH."""
    (tmp_path / "bin").mkdir()
    path = tmp_path / "bin" / "g++"
    path.write_text(f"#!{interpreter}\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent))


def test_our_source_compiles_and_every_kernel_is_declared_as_it_is_called(folders: Path) -> None:
    library = build.library()
    assert len(compiled(folders)) == 1
    text = build.SOURCE.read_text().replace("\\\n", "\n").replace("##", "")
    found = {}
    for name, arguments in re.findall(r'extern "C" void (\w+)\(([^)]*)\)', text):
        kinds = [re.sub(r"\bconst\b", "", one).strip() for one in arguments.split(",")]
        found[name] = "".join("p" if "*" in kind else LETTERS[kind.split()[0]] for kind in kinds)
    declared = build.PLAIN | {f"{name}_suffix": letters for name, letters in build.TYPED.items()}
    assert found == {name: letters.replace(" ", "") for name, letters in declared.items()}
    for name in build.TYPED:
        assert hasattr(library, f"{name}_f32") and hasattr(library, f"{name}_bf16")


def test_compiled_once_and_then_reused(folders: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer() == 42
    (path,) = compiled(folders)
    before = path.stat()
    forget()
    monkeypatch.setattr(build, "_compile", lambda _target: pytest.fail("compiled again"))
    assert answer() == 42
    assert path.stat() == before


def test_the_cache_is_for_its_owner_only(folders: Path, source: Path) -> None:
    build.library()
    assert folders.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["source", "flags", "compiler", "processor"])
def test_whatever_decides_the_machine_code_names_its_file(
    folders: Path, source: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answer() == 42
    forget()
    if what == "source":
        source.write_text(STAND_IN.replace("42", "43"))
    elif what == "flags":
        monkeypatch.setattr(build, "FLAGS", [*build.FLAGS, "-O1"])
    elif what == "compiler":
        monkeypatch.setattr(build, "compiler", lambda: "g++ of tomorrow")
    else:
        monkeypatch.setattr(build, "_processor", lambda: "flags: another")
    try:
        assert answer() == (43 if what == "source" else 42)
    finally:
        monkeypatch.undo()
    assert len(compiled(folders)) == 2


def refused(reason: str) -> None:
    with pytest.raises(Unavailable, match=reason):
        build.library()
    assert re.search(reason, build.unavailable())
    assert not build.available()


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    refused("no g\\+\\+ found")


GNU = '[ "$1" = --version ] && { echo "g++ 1.0"; echo "(C) Free Software Foundation"; exit 0; }\n'


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (GNU + "echo 'no room left' >&2; exit 1", "g\\+\\+ failed: no room left"),
        (GNU + "exit 1", "g\\+\\+ failed: nothing"),
        ("exit 1", "g\\+\\+ failed: nothing"),
        ("echo clang version 19.1; echo Target: x86_64", "g\\+\\+ is not GNU's"),
    ],
    ids=["complains", "is silent", "has no version", "is clang"],
)
def test_a_compiler_that_does_not_serve(
    folders: Path, tmp_path: Path, script: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    impostor(tmp_path, monkeypatch, script)
    refused(reason)
    assert not folders.exists() or not compiled(folders)


def test_a_compiler_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impostor(tmp_path, monkeypatch, "", interpreter=str(tmp_path / "absent"))
    refused("g\\+\\+ failed: .*No such file")


def test_a_failed_compile_is_not_tried_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    impostor(tmp_path, monkeypatch, f"echo x >> {log}\n" + GNU + "exit 1")
    assert not any(build.available() for _ in range(5))
    assert len(log.read_text().split()) == 2, "its version, and one attempt"


def elsewhere(tmp_path: Path) -> Path:
    return tmp_path / "tmp" / f"mtbert-{os.getuid()}"


def test_an_unusable_cache_gives_way_to_the_temporary_folder(folders: Path, tmp_path: Path, source: Path) -> None:
    folders.parent.write_text("a file where the folder should be")
    assert answer() == 42
    assert len(compiled(elsewhere(tmp_path))) == 1


def test_so_does_a_user_without_a_home(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert answer() == 42
    assert len(compiled(elsewhere(tmp_path))) == 1


def test_a_damaged_file_is_not_the_end(
    folders: Path, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(build, "_load", lambda path: path.write_bytes(b"\x7fELF and then nothing"))
        build.library()
    forget()
    assert answer() == 42
    assert len(compiled(elsewhere(tmp_path))) == 1


def test_with_no_place_at_all(folders: Path, tmp_path: Path, source: Path) -> None:
    folders.parent.write_text("")
    elsewhere(tmp_path).write_text("")
    refused("neither the cache nor the temporary folder")


def test_what_lies_in_another_user_s_folder_is_not_run(
    folders: Path, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build.library()
    forget()
    (theirs,) = compiled(folders)
    of = Path.stat

    def stat(self: Path, **options: bool) -> os.stat_result:
        found = of(self, **options)
        return os.stat_result((*found[:4], found.st_uid + 1, *found[5:])) if self == folders else found

    loaded: list[Path] = []
    load = build._load
    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(build, "_load", lambda path: (loaded.append(path), load(path))[1])
    assert answer() == 42
    assert loaded == compiled(elsewhere(tmp_path)) and theirs not in loaded


def test_nor_if_no_folder_is_ours(folders: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.library()
    forget()
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    refused("neither the cache nor the temporary folder")


def test_compiling_at_the_same_time_leaves_one_whole_file(folders: Path, source: Path) -> None:
    folders.mkdir(parents=True)
    target = folders / "kernels-same.so"
    sizes = set()

    def compile_and_look(_n: int) -> None:
        build._compile(target)
        sizes.add(target.stat().st_size)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(compile_and_look, range(4)))
    assert compiled(folders) == [target]
    assert len(sizes) == 1, "nobody ever saw a part of it"
    assert build._load(target).answer


def test_an_interrupted_compile_leaves_nothing(folders: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = build._output

    def interrupted(command: list[str]) -> str:
        if "-shared" in command:
            raise KeyboardInterrupt
        return output(command)

    monkeypatch.setattr(build, "_output", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.library()
    assert not compiled(folders)
