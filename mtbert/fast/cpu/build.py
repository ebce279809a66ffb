"""Compile kernels.cpp with the machine's own g++, once, and load it."""

import ctypes
import functools
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

from mtbert.files import scratch_folder, sha256_file

SOURCE = Path(__file__).with_name("kernels.cpp")
# No -ffast-math: a NaN must stay one. OpenMP's symbols are left open, so that torch's own threads serve them.
FLAGS = [
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp",
    "-fPIC",
    "-Wno-psabi",
]

# Arguments by letter: p a pointer, i an int, l an int64, f a float; TYPED functions exist for float (_f32) and bf16 (_bf16).
PLAIN = {"random_words": "pll p", "adamw": "l ppppppppp ffffff"}
TYPED = {
    "residual_norm": "ppppp if pp f ll ppppp",
    "residual_norm_backward": "pppppp pp ppp pif p ll ppp",
    "gelu": "ppp ll p",
    "gelu_backward": "pppp ll pp",
    "attention": "pppp if pp lll p",
    "attention_backward": "pppp pif pp lll pp",
    "dora_norm": "ppppp ff llll ppp",
    "dora_norm_backward": "pppp ff llll ppppp ppp",
}
TYPES = {"p": ctypes.c_void_p, "i": ctypes.c_int, "l": ctypes.c_int64, "f": ctypes.c_float}


class Unavailable(Exception):
    """Why there are no kernels here; all that they do is then done by torch."""


@functools.cache
def library() -> ctypes.CDLL:
    """The kernels of this machine; the first call on it compiles them, for some seconds.

    The file's name holds a checksum of all that decides its machine code, and one of its own bytes, compared before it is loaded.

    Raises:
        Unavailable: no g++, or it failed, or there is nowhere to keep what it made.
    """
    version = compiler()
    key = hashlib.sha256("\0".join([SOURCE.read_text(encoding="utf-8"), version, *FLAGS, _processor()]).encode())
    name = f"kernels-{key.hexdigest()[:16]}"
    folders = (_cache, lambda: Path(tempfile.gettempdir()) / f"mtbert-{os.getuid()}")
    for find in folders:
        with suppress(OSError, RuntimeError):  # Path.home() finds none
            folder = find()
            if _private(folder):
                return _load(_sound(folder, name) or _compile(folder / name))
    raise Unavailable("no compiled kernels: neither the cache nor the temporary folder can be used")


@functools.cache
def unavailable() -> str:
    """Why `library` gives none; empty if it does."""
    try:
        library()
    except Unavailable as error:
        return str(error)
    return ""


def available() -> bool:
    """Whether `library` gives one."""
    return not unavailable()


@functools.cache
def compiler() -> str:
    """The first line of what g++ says of itself.

    Raises:
        Unavailable: there is none.
    """
    if shutil.which("g++") is None:
        raise Unavailable("no compiled kernels: no g++ found")
    told = _output(["g++", "--version"])
    if "Free Software Foundation" not in told:  # another compiler's OpenMP would bring threads of its own
        raise Unavailable("no compiled kernels: g++ is not GNU's")
    return told.splitlines()[0]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtbert"


def _private(folder: Path) -> bool:
    """Make a folder for this user alone; False, after a note, if it is there and others can decide what lies in it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    about = folder.lstat()
    if stat.S_ISLNK(about.st_mode):
        fault = "a link"
    elif about.st_uid != os.getuid():
        fault = "another user's"
    elif about.st_mode & 0o022:
        fault = "a folder that others can write to"
    else:
        return True
    print(f"note: {folder}: {fault}, so that compiled kernels are not kept there; remove it", file=sys.stderr)
    return False


def _sound(folder: Path, name: str) -> Path | None:
    """The library called `name` in a folder whose bytes have the checksum in its file's name; any other is removed."""
    for path in sorted(folder.glob(f"{name}-*.so")):
        about = path.lstat()
        if stat.S_ISREG(about.st_mode) and about.st_uid == os.getuid() and path == _named(path, folder / name):
            return path
        print(f"note: {path}: not the kernels that were compiled; they are compiled anew", file=sys.stderr)
        path.unlink()
    return None


def _named(library: Path, target: Path) -> Path:
    return target.with_name(f"{target.name}-{sha256_file(library)[:32]}.so")


def _compile(target: Path) -> Path:
    with scratch_folder(target.with_name("kernels")) as folder:
        compiled, linked = folder / "kernels.o", folder / "kernels.so"
        _output(["g++", *FLAGS, "-c", str(SOURCE), "-o", str(compiled)])
        _output(["g++", "-shared", str(compiled), "-o", str(linked)])
        return linked.replace(_named(linked, target))


def _load(path: Path) -> ctypes.CDLL:
    assert torch.get_num_threads()  # its OpenMP must be there first
    loaded = ctypes.CDLL(str(path))
    for name, letters in [*PLAIN.items(), *((f"{name}_{a}", TYPED[name]) for name in TYPED for a in ("f32", "bf16"))]:
        function = getattr(loaded, name)
        function.argtypes, function.restype = [TYPES[letter] for letter in letters.replace(" ", "")], None
    return loaded


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise Unavailable(f"no compiled kernels: {command[0]} failed: {error}") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[0]
        raise Unavailable(f"no compiled kernels: {command[0]} failed: {said}")
    return done.stdout
