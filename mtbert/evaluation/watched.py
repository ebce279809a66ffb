"""How many examples a point of a learning curve has."""

# Enough for a point: its standard error is 2 percentage points. The evaluate stage predicts all of dev.
WATCHED = 500


def watched(epoch_end: object, batch_size: int, tasks: int) -> int:
    """The number of examples of each task in a point of the learning curve: fewer where epochs are short, so that training
    takes much longer than watching it.

    Args:
        epoch_end, batch_size: as in `Recipe`.
        tasks: how many tasks are watched.
    """
    return min(WATCHED, max(1, epoch_end * batch_size // (2 * tasks))) if isinstance(epoch_end, int) else WATCHED
