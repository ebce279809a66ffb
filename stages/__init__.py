"""One file per stage: stage name = file name. Each reads its params, calls the library, and writes its outs."""
