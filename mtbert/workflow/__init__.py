"""The pipeline's graph, as DVC resolves it, for engines that run several stages at once. Only `mtbert.cli` and `mtbert.bundle` import this."""
