"""One file per stage, named after it. Each reads its plan, calls the library, and writes its outs."""

import sys

# In `python -m stages.NAME`, and only then, argv begins with -m while Python imports this package. The stage's own imports follow and
# take a second or more, too long to run without the signal.
if sys.argv[:1] == ["-m"]:
    from mtbert.pipeline.start import end_with_dvc

    end_with_dvc()
