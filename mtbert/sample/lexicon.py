"""Word lists as text: `|` or a new line between entries, `/` between synonyms."""

Synonyms = tuple[str, ...]
"""Synonyms of one noun or verb."""


def words(text: str) -> tuple[str, ...]:
    """The entries of a list."""
    return tuple(entry.strip() for line in text.splitlines() for entry in line.split("|") if entry.strip())


def entities(text: str) -> tuple[Synonyms, ...]:
    """The entries of a list, each as a tuple of synonyms."""
    return tuple(tuple(entry.split("/")) for entry in words(text))
