"""The one exception a user meets: what is wrong, where, and what to do about it."""


class MtbertError(Exception):
    """A bad input, setting or state. The message names the place (file:line:column or params key) and the remedy.

    Stages and the command line print it without a traceback and exit with status 1.
    """
