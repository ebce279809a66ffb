"""Compile kernels.cpp once with the machine's g++, cache the library, and load it."""

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
# No -ffast-math, so that NaN stays NaN. OpenMP is not linked: its symbols resolve to torch's, so that threads are
# shared.
FLAGS = [
    "-std=c++17",
    "-O2",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp",
    "-fPIC",
    "-Wno-psabi",
]

# Arguments by letter: p pointer, i int, l int64, f float. TYPED functions exist for float (_f32) and bf16 (_bf16).
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
    """Why there are no compiled kernels; plain torch is used instead."""


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernels. The first call on a machine compiles them, which takes some seconds.

    The file's name holds a checksum of all that decides the machine code, and a checksum of its bytes, which is checked
    before loading.

    Raises:
        Unavailable: there is no g++, it failed, or there is no folder to cache the library in.
    """
    version = compiler()
    key = hashlib.sha256("\0".join([SOURCE.read_text(encoding="utf-8"), version, *FLAGS, _processor()]).encode())
    name = f"kernels-{key.hexdigest()[:16]}"
    folders = (_cache, lambda: Path(tempfile.gettempdir()) / f"mtbert-{os.getuid()}")
    for find in folders:
        with suppress(OSError, RuntimeError):  # no home folder
            folder = find()
            if _private(folder):
                return _load(_sound(folder, name) or _compile(folder / name))
    raise Unavailable("no compiled kernels: neither the cache nor the temporary folder can be used")


@functools.cache
def unavailable() -> str:
    """Why there are no kernels; empty if there are."""
    try:
        library()
    except Unavailable as error:
        return str(error)
    return ""


@functools.cache
def compiler() -> str:
    """The first line of `g++ --version`.

    Raises:
        Unavailable: there is no g++, or it is another compiler by that name.
    """
    if shutil.which("g++") is None:
        raise Unavailable("no compiled kernels: no g++ found")
    version = _output(["g++", "--version"])
    if "Free Software Foundation" not in version:  # another compiler's OpenMP would start threads of its own
        raise Unavailable("no compiled kernels: g++ is not GNU's")
    return version.splitlines()[0]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtbert"


def _private(folder: Path) -> bool:
    """Make a folder for this user alone; prints a note and returns False if it exists and others could write to it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.lstat()
    if stat.S_ISLNK(status.st_mode):
        fault = "a link"
    elif status.st_uid != os.getuid():
        fault = "another user's"
    elif status.st_mode & 0o022:
        fault = "a folder that others can write to"
    else:
        return True
    print(f"note: {folder}: is {fault}, so compiled kernels are not cached there; remove it", file=sys.stderr)
    return False


def _sound(folder: Path, name: str) -> Path | None:
    """The cached library called `name`, if its bytes have the checksum in the file's name; others of this name are removed."""
    for path in sorted(folder.glob(f"{name}-*.so")):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and path == _named(path, folder / name):
            return path
        print(f"note: {path}: changed since it was compiled; compiling again", file=sys.stderr)
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
    assert torch.get_num_threads()  # torch's OpenMP must be loaded first
    loaded = ctypes.CDLL(str(path))
    for name, letters in [*PLAIN.items(), *((f"{name}_{a}", TYPED[name]) for name in TYPED for a in ("f32", "bf16"))]:
        function = getattr(loaded, name)
        function.argtypes, function.restype = [TYPES[letter] for letter in letters.replace(" ", "")], None
    return loaded


def _processor() -> str:
    """The processor's features, which -march=native depends on."""
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
        reason = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise Unavailable(f"no compiled kernels: {command[0]} failed: {reason}")
    return done.stdout
