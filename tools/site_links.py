"""A hook of MkDocs for links that lead out of docs/, which has no address on the site.

Figures and tables of results, in reports/ and studies/, are put on the site; a table in Markdown becomes a page that is not in the menu. Of any other
link the text stays.
"""

import re
from pathlib import Path
from posixpath import dirname, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

LINK = re.compile(r"(!?)\[([^\]]*)\]\((\.\./[^)\s]+)\)")
RESULTS = re.compile(r"(reports|studies)/.+\.(md|svg|png)")


def outside(page: str, link: str) -> str | None:
    """Where a page's link leads, from the project's root; None if that is in docs/."""
    path = normpath(f"docs/{dirname(page)}/{link}")
    return None if path.startswith("docs/") else path


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by MkDocs before it reads the pages."""
    linked = {
        outside(page.src_uri, link[3])
        for page in files.documentation_pages()
        for link in LINK.finditer(page.content_string)
    }
    for path in sorted(path for path in linked if path and RESULTS.fullmatch(path)):
        source = str(Path(path).absolute())
        files.append(File.generated(config, path, abs_src_path=source, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Called by MkDocs for every page."""

    def inside(link: re.Match[str]) -> str:
        path = outside(page.file.src_uri, link[3])
        if path is None:
            return link[0]
        if path not in files.src_uris:
            return link[2]
        return f"{link[1]}[{link[2]}]({relpath(path, dirname(page.file.src_uri) or '.')})"

    return LINK.sub(inside, markdown)
