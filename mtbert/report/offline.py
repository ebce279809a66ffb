"""A page for `dvc plots show` and `dvc plots diff` that opens without a network.

DVC's own page loads its drawing code (Vega) from the network. Run as `python -m mtbert.report.offline` in the project's root,
this writes a page that holds the code, .dvc/plots.html, which git ignores, and tells DVC to use it (in .dvc/config.local).
"""

import subprocess
import sys
from pathlib import Path

from mtbert.errors import MtbertError
from mtbert.files import atomic_write_text

PAGE = Path(".dvc/plots.html")
# DVC fills in {plot_divs}; without {scripts} it loads nothing.
TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: file:; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'">
<title>Plots</title>
{refresh_tag}
<style>
body { margin: 1rem; font-family: system-ui, sans-serif; }
</style>
<script>
CODE
</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def html(code: str) -> str:
    """The page for DVC to fill in, with the JavaScript that defines `vegaEmbed`."""
    return TEMPLATE.replace("CODE", code)


def drawing_code() -> str:
    """Vega, Vega-Lite 5, which DVC's templates are written for, and Vega-Embed, in one script."""
    import vl_convert

    version = [name for name in vl_convert.get_vegalite_versions() if name.startswith("5.")][-1]
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)


def main() -> None:
    """Write the page, and tell DVC to use it."""
    try:
        if not PAGE.parent.is_dir():
            raise MtbertError(f"{PAGE.parent}: not found; run in the project's root")
        atomic_write_text(PAGE, html(drawing_code()))
    except MtbertError as error:
        sys.exit(f"error: {error}")
    # A path that is not absolute is taken from .dvc.
    subprocess.run([sys.executable, "-m", "dvc", "config", "--local", "plots.html_template", PAGE.name], check=True)


if __name__ == "__main__":
    main()
