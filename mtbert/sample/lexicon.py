"""Word lists as text: `|` or a new line between entries."""


def words(text: str) -> tuple[str, ...]:
    """The entries of a list."""
    return tuple(entry.strip() for line in text.splitlines() for entry in line.split("|") if entry.strip())
