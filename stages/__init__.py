"""One file per stage. Each reads its plan, calls the library, and writes its outputs."""

import signal
import sys

from mtbert.pipeline.start import end_with_starter, share_cores

share_cores()
# Only in `python -m stages.NAME` does argv begin with -m while Python imports this package. The stage's own imports
# take a second or more, during which DVC may already end, or the user press Ctrl-C: until `start`, that ends the stage at once.
if sys.argv[:1] == ["-m"]:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_starter()
