"""A page for `dvc plots show` and `dvc plots diff` that opens without a network.

DVC's own page loads Vega, which draws the plots, from the network. `python -m mtbert.report.offline`, run in the project's
root, writes a page that includes Vega to .dvc/plots.html (ignored by git) and makes it DVC's template in .dvc/config.local.
"""

import subprocess
import sys
from pathlib import Path

from mtbert.errors import MtbertError
from mtbert.files import atomic_write_text

PAGE = Path(".dvc/plots.html")
# CODE is the script that defines `vegaEmbed`. DVC fills in {plot_divs}. The template leaves out {scripts}, so the page loads nothing.
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


def drawing_code() -> str:
    """Vega, Vega-Lite 5 (the version of DVC's templates) and Vega-Embed in one script."""
    import vl_convert

    version = [name for name in vl_convert.get_vegalite_versions() if name.startswith("5.")][-1]
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)


def main() -> None:
    """Write the page and make it DVC's template."""
    try:
        if not PAGE.parent.is_dir():
            raise MtbertError(f"{PAGE.parent}: not found; run in the project's root")
        atomic_write_text(PAGE, TEMPLATE.replace("CODE", drawing_code()))
    except MtbertError as error:
        sys.exit(f"error: {error}")
    # DVC resolves a relative path from .dvc.
    subprocess.run([sys.executable, "-m", "dvc", "config", "--local", "plots.html_template", PAGE.name], check=True)


if __name__ == "__main__":
    main()
