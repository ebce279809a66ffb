"""Compiling: once, into a private folder, completely or not at all; and a clear reason if there is no compiler."""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mtbert.fast.cpu import build
from mtbert.fast.cpu.build import Unavailable

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

STAND_IN = '#include <cstdint>\nextern "C" void answer(int64_t* out) { *out = 42; }\n'
LETTERS = {"int": "i", "int64_t": "l", "float": "f"}


def forget() -> None:
    for cached in (build.library, build.unavailable, build.compiler):
        cached.cache_clear()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new cache and a new temporary folder; returns the cache."""
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
    """Make a script named g++ the only program on the PATH."""
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


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(path: Path) -> None:
    moved = path.rename(path.parent.parent / f"moved-{path.name}")
    path.symlink_to(moved)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "one bit": one_bit,
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "nothing": lambda path: os.truncate(path, 0),
    "a link": link,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_library_is_compiled_again(
    folders: Path, source: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """It must not be loaded: running code of a truncated file ends the process by SIGBUS."""
    assert answer() == 42
    forget()
    (path,) = compiled(folders)
    whole = path.read_bytes()
    # Another file: this process holds the first one mapped.
    path.unlink()
    path.write_bytes(whole)
    damage(path)
    assert answer() == 42
    assert compiled(folders) == [path] and path.read_bytes() == whole and not path.is_symlink()
    assert re.fullmatch(rf"note: {path}: changed since it was compiled; .*\n", capsys.readouterr().err)
    forget()
    assert answer() == 42
    assert not capsys.readouterr().err


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are loaded from now on."""
    found: list[Path] = []
    load = build._load
    monkeypatch.setattr(build, "_load", lambda path: (found.append(path), load(path))[1])
    return found


CHANGES: dict[str, Callable[[Path], None]] = {
    "writable by all": lambda folder: folder.chmod(0o777),
    "writable by the group": lambda folder: folder.chmod(0o770),
    "a link": link,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_folder_that_others_can_write_to_is_not_used(
    folders: Path, tmp_path: Path, source: Path, change: Callable[[Path], None], capsys: pytest.CaptureFixture[str],
    loaded: list[Path],
) -> None:  # fmt: skip
    build.library()
    forget()
    change(folders)
    loaded.clear()
    assert answer() == 42
    assert loaded == compiled(elsewhere(tmp_path))
    assert re.fullmatch(
        rf"note: {folders}: is a (link|folder that others can write to), .*; remove it\n", capsys.readouterr().err
    )


def test_the_cache_is_for_its_owner_only(folders: Path, source: Path) -> None:
    build.library()
    assert folders.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["source", "flags", "compiler", "processor"])
def test_the_file_is_named_by_all_that_decides_the_machine_code(
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


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    refused("no g\\+\\+ found")


GNU = '[ "$1" = --version ] && { echo "g++ 1.0"; echo "(C) Free Software Foundation"; exit 0; }\n'


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (GNU + "echo 'no room left' >&2; exit 1", "g\\+\\+ failed: no room left"),
        (GNU + "exit 1", "g\\+\\+ failed: no message"),
        ("exit 1", "g\\+\\+ failed: no message"),
        ("echo clang version 19.1; echo Target: x86_64", "g\\+\\+ is not GNU's"),
    ],
    ids=["complains", "is silent", "has no version", "is clang"],
)
def test_a_compiler_that_cannot_be_used(
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
    assert all(build.unavailable() for _ in range(5))
    assert len(log.read_text().split()) == 2, "its version, and one attempt"


def elsewhere(tmp_path: Path) -> Path:
    return tmp_path / "tmp" / f"mtbert-{os.getuid()}"


def test_the_temporary_folder_replaces_an_unusable_cache(folders: Path, tmp_path: Path, source: Path) -> None:
    folders.parent.write_text("a file where the folder should be")
    assert answer() == 42
    assert len(compiled(elsewhere(tmp_path))) == 1


def test_the_temporary_folder_is_used_without_a_home(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert answer() == 42
    assert len(compiled(elsewhere(tmp_path))) == 1


def test_the_temporary_folder_replaces_a_cache_that_cannot_be_loaded_from(
    folders: Path, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system mounted noexec."""
    load = build._load

    def refuse(path: Path) -> ctypes.CDLL:
        if path.parent == folders:
            raise OSError("failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(build, "_load", refuse)
    assert answer() == 42
    assert len(compiled(elsewhere(tmp_path))) == 1


def test_without_any_usable_folder(folders: Path, tmp_path: Path, source: Path) -> None:
    folders.parent.write_text("")
    elsewhere(tmp_path).write_text("")
    refused("neither the cache nor the temporary folder")


def test_a_library_in_another_user_s_folder_is_not_loaded(
    folders: Path, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, loaded: list[Path]
) -> None:
    build.library()
    forget()
    (theirs,) = compiled(folders)
    of = Path.lstat

    def lstat(self: Path) -> os.stat_result:
        found = of(self)
        return os.stat_result((*found[:4], found.st_uid + 1, *found[5:])) if self == folders else found

    monkeypatch.setattr(Path, "lstat", lstat)
    loaded.clear()
    assert answer() == 42
    assert loaded == compiled(elsewhere(tmp_path)) and theirs not in loaded


def test_without_a_folder_of_our_own_nothing_is_loaded(
    folders: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build.library()
    forget()
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    refused("neither the cache nor the temporary folder")


def test_compiling_at_the_same_time_leaves_one_whole_file(folders: Path, source: Path) -> None:
    folders.mkdir(parents=True)
    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda _: build._compile(folders / "kernels-same"), range(4)))
    assert compiled(folders) == sorted(made) and len(made) == 1
    assert build._sound(folders, "kernels-same") in made


def test_the_next_compile_removes_what_a_killed_one_left(
    folders: Path, source: Path, tmp_path: Path, root: Path
) -> None:
    code = (
        "import os, signal\nfrom mtbert.fast.cpu import build\n"
        "build._output = lambda command: os.kill(os.getpid(), signal.SIGKILL)\n"
        "build._compile(build.Path(os.environ['XDG_CACHE_HOME']) / 'mtbert' / 'kernels-any')\n"
    )
    folders.mkdir(parents=True)
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL and len(list(folders.iterdir())) == 1
    build.library()
    assert len(compiled(folders)) == 1


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
