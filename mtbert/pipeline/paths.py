"""The pipeline's paths, and the check that they are inside the project."""

import shlex
from contextlib import suppress
from pathlib import Path

from mtbert.errors import MtbertError

RAW, PREPARED, MODELS, RESULTS = Path("data/raw"), Path("data/prepared"), Path("models"), Path("results")
METRICS, PLOTS, REPORTS = Path("metrics"), Path("plots"), Path("reports")
PRETRAINED, CONVERTED = MODELS / "pretrained", MODELS / "converted"


def confine(*paths: Path) -> None:
    """Check that these files and folders, and the targets of all links in them, are inside the project.

    Raises:
        MtbertError: names the first link that leads out of the project, and its target.
    """
    root = Path.cwd().resolve()
    waiting, seen = list(paths), set()
    while waiting:
        path = waiting.pop()
        try:
            target = path.resolve()
        except RuntimeError:
            raise MtbertError(f"{path}: a link to itself; remove it") from None
        if root not in target.parents:
            raise MtbertError(_leads_out(root, path))
        if target.is_dir() and target not in seen:
            seen.add(target)
            with suppress(FileNotFoundError):  # another run's temporary folder, just removed
                waiting.extend(path.iterdir())


def _leads_out(root: Path, path: Path) -> str:
    """The error for a path that leads out of the project; names the first link on the path that does."""
    steps = [*reversed(path.parents), path]
    link = next(step for step in steps if step.is_symlink() and root not in step.resolve().parents)
    target = link.resolve()
    copy, there = shlex.quote(str(link)), shlex.quote(str(target))
    remedy = (
        f"replace it by a copy: `rm {copy} && cp -rL {there} {copy}`" if target.exists() else f"remove it: `rm {copy}`"
    )
    by_dvc = "; if DVC made the link, `dvc config --local cache.type copy && dvc checkout --relink` replaces all of its links"
    return f"{link}: a link leads out of the project, to {target}; {remedy}{by_dvc}"
