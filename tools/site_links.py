"""A hook of MkDocs for links that lead out of docs/, which has no address on the site.

Figures and tables of results, in reports/ and studies/, are put on the site; a table in Markdown becomes a page that is not in the menu. Of any other
link the text stays.
"""

import os
import re
from pathlib import Path
from posixpath import dirname, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

LINK = re.compile(r"(!?)\[([^\]]*)\]\((\.\./[^)\s#]+)(#[^)\s]+)?\)")
RESULTS = re.compile(r"(reports|studies)/.+\.(md|svg|png)")


def target(page: File, link: str) -> str:
    """Where a page's link leads: the address on the site, if the file is put there."""
    path = normpath(f"{dirname(os.path.relpath(str(page.abs_src_path)))}/{link}")
    return path.removeprefix("docs/")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by MkDocs before it reads the pages."""
    pages = files.documentation_pages()
    linked = {target(page, link[3]) for page in pages for link in LINK.finditer(page.content_string)}
    for path in sorted(filter(RESULTS.fullmatch, linked)):
        source = str(Path(path).absolute())
        files.append(File.generated(config, path, abs_src_path=source, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Called by MkDocs for every page."""

    def inside(link: re.Match[str]) -> str:
        image, text, path, anchor = link.groups(default="")
        address = target(page.file, path)
        if address not in files.src_uris:
            return text
        return f"{image}[{text}]({relpath(address, dirname(page.file.src_uri) or '.')}{anchor})"

    return LINK.sub(inside, markdown)
