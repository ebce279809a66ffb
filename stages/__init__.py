"""One file per stage. Each reads its plan, calls the library, and writes its outputs."""

import sys

from mtbert.pipeline.start import end_with_starter, share_cores

share_cores()
# Only in `python -m stages.NAME` does argv begin with -m while Python imports this package. The stage's own imports
# take a second or more, during which DVC may already end.
if sys.argv[:1] == ["-m"]:
    end_with_starter()
