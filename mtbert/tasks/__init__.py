"""The tasks as data: columns, labels, objectives, metrics (sections 4.1 to 4.4, 5.1)."""
