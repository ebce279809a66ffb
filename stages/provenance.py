"""Which code made something: recorded where a run is trained, and where the page is made."""

import subprocess


def commit() -> str:
    """The commit of the code, and whether it had uncommitted changes; `not under git` for a downloaded copy."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        command = ["git", "status", "--porcelain", "--", "mtbert", "stages"]
        changed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not under git"
    return f"commit {head}" + (" with uncommitted changes" if changed else "")
