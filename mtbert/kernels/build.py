"""Compile kernels.cpp with the machine's own g++, once, and load it."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

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

    Raises:
        Unavailable: no g++, or it failed, or there is nowhere to keep what it made.
    """
    version = compiler()
    key = hashlib.sha256("\0".join([SOURCE.read_text(encoding="utf-8"), version, *FLAGS, _processor()]).encode())
    name = f"kernels-{key.hexdigest()[:16]}.so"
    folders = (_cache, lambda: Path(tempfile.gettempdir()) / f"mtbert-{os.getuid()}")
    for find in folders:
        with suppress(OSError, RuntimeError):  # Path.home() finds none
            folder = find()
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if folder.stat().st_uid != os.getuid():  # somebody else's: what lies there is not ours to run
                continue
            if not (folder / name).exists():
                _compile(folder / name)
            return _load(folder / name)
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


def _compile(target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        compiled, linked = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
        _output(["g++", *FLAGS, "-c", str(SOURCE), "-o", str(compiled)])
        _output(["g++", "-shared", str(compiled), "-o", str(linked)])
        linked.replace(target)


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
