"""The checkout: git, DVC, its state and its cache, and leftovers."""

import os
import shlex
import shutil
import sys
from collections.abc import Collection
from pathlib import Path

from mtbert.doctor.check import Check, output
from mtbert.housekeeping import human, leftovers, size_of

SITE_CACHE = ".dvc-site-cache"


def git(root: Path) -> Check:
    if shutil.which("git") is None:
        return Check("note", "no git", "install git for experiments (`dvc exp`); `make reproduce` does not need it")
    if output(root, "git", "rev-parse", "--git-dir") is None:
        remedy = "run `git init && git add -A && git commit -m start` for experiments (`dvc exp`); `make reproduce` does not need it"
        return Check("note", "no git repository", remedy)
    if output(root, "git", "rev-parse", "--verify", "-q", "HEAD") is None:
        remedy = "run `git add -A && git commit -m start`; experiments (`dvc exp`) need a commit"
        return Check("note", "the git repository has no commit", remedy)
    return Check("ok", f"git repository at commit {output(root, 'git', 'rev-parse', '--short', 'HEAD')}")


def identity(root: Path) -> Check:
    missing = [key for key in ("user.name", "user.email") if not output(root, "git", "config", key)]
    if missing:
        command = " && ".join(f'git config {key} "…"' for key in missing)
        remedy = f"run `{command}`; commits and experiments need it"
        return Check("note", f"git does not know your {' and '.join(missing)}", remedy)
    return Check("ok", "git knows your name and address")


def dvc(root: Path) -> Check:
    version = _dvc(root, "--version")
    if version is None:
        return Check("problem", "DVC does not run", "run `make install`")
    if not (root / ".dvc").is_dir():
        return Check("problem", f"DVC {version}, but no .dvc folder here", "restore it with `git checkout .dvc`")
    return Check("ok", f"DVC {version}")


def site_cache(root: Path) -> Check:
    """DVC unpickles its state from there, so anyone who can write to it can run code as the user."""
    own = root / SITE_CACHE if str(root).isascii() else Path.home() / ".cache/mtbert/dvc"  # DVC's settings are ASCII
    quoted = shlex.quote(str(own))
    make = f"`mkdir -p -m 700 {quoted} && dvc config --local core.site_cache_dir {quoted}`"
    set_to = os.environ.get("DVC_SITE_CACHE_DIR") or _dvc(root, "config", "core.site_cache_dir")
    if not set_to:
        what = "DVC keeps its state in a folder that all users of this machine share"
        return Check("note", what, f"{make} makes a private one")
    folder = Path(set_to)
    if not folder.is_absolute():
        remedy = f"experiments and subfolders need an absolute path: {make}"
        return Check("problem", f"core.site_cache_dir is relative ({set_to})", remedy)
    try:
        status = folder.stat()
    except OSError as error:
        return Check("problem", f"{set_to}: {error.strerror}", f"{make} makes a new one")
    if status.st_uid != os.getuid():
        what = f"{set_to}, where DVC keeps its state, belongs to another user"
        return Check("problem", what, f"{make} makes a private one")
    if status.st_mode & 0o022:
        remedy = f"`chmod 700 {shlex.quote(set_to)}`"
        return Check("problem", f"other users can write to {set_to}, where DVC keeps its state", remedy)
    return Check("ok", f"DVC keeps its state in {set_to}")


def cache(root: Path) -> Check:
    """DVC's cache holds every output once more, unless the file system can link to it."""
    shown = _dvc(root, "cache", "dir")
    if shown is None:
        return Check("note", "DVC's cache not examined", "see DVC above")
    folder = Path(shown)
    if not folder.is_dir():
        return Check("ok", f"DVC's cache, {folder}, is empty")
    if not os.access(folder, os.W_OK):
        # Not its files, to which outputs in the workspace may be hard links.
        remedy = f"`find {shlex.quote(shown)} -type d -exec chmod u+w {{}} +`"
        return Check("problem", f"DVC's cache, {folder}, cannot be written", remedy)
    what = f"DVC's cache, {folder}, has {human(size_of(folder))}"
    if folder.stat().st_dev != root.stat().st_dev:
        remedy = "outputs take their space twice; `dvc cache dir --local .dvc/cache` keeps them on this one"
        return Check("note", f"{what} on another file system", remedy)
    return Check("ok", what)


def _dvc(root: Path, *arguments: str) -> str | None:
    """As `output`, of a command of DVC."""
    return output(root, sys.executable, "-m", "dvc", *arguments)


def undeclared(root: Path, runs: Collection[str]) -> Check:
    found = leftovers(root, runs)
    if not found:
        return Check("ok", "no leftovers of killed or undeclared runs")
    counts = {why: sum(leftover.why == why for leftover in found) for why in (leftover.why for leftover in found)}
    listed = ", ".join(f"{count} × {why.partition(';')[0]}" for why, count in counts.items())
    size = human(sum(leftover.size for leftover in found))
    return Check("note", f"{size} of leftovers ({listed})", "run `mtbert clean` to list and remove them")
