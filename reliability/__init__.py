"""Trials of what mtbert promises: each figure counts, and each has planted bugs that it must catch."""
