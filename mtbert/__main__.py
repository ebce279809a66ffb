"""`python -m mtbert` is the `mtbert` command."""

from mtbert.cli import main

if __name__ == "__main__":
    main()
