"""Sections 4.1 to 4.4 and 5.1 as data: tasks (columns, files, labels) and objectives (head, loss, decision, metric)."""
