"""Word lists as text: `|` or a new line between entries, `/` between forms of one entry."""

Forms = tuple[str, ...]
"""The forms of one thing or deed: any of them may stand for it."""


def words(text: str) -> tuple[str, ...]:
    """The entries of a list."""
    return tuple(entry.strip() for line in text.splitlines() for entry in line.split("|") if entry.strip())


def entities(text: str) -> tuple[Forms, ...]:
    """The entries of a list, each as the tuple of its forms."""
    return tuple(tuple(entry.split("/")) for entry in words(text))
