"""Without mtbert/fast there is nothing to test here."""

from importlib.util import find_spec

_spec = find_spec("mtbert.fast")
# A deleted folder may have left its __pycache__, of which Python makes a package without a file.
collect_ignore_glob = [] if _spec and _spec.origin else ["*"]
