"""One file per stage: stage name = file name. Each reads its params, calls the library, and writes its outs."""

import sys

# Python imports this package before the stage's module: in `python -m stages.NAME`, and only there, argv begins with -m by now.
# The stage's own imports take a second or more, too long to be without the signal.
if sys.argv[:1] == ["-m"]:
    from stages.common import end_with_dvc

    end_with_dvc()
