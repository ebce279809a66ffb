"""A hook of MkDocs for links that lead out of docs/, which has no address on the site: of a link the text stays, an image is copied."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

OUTSIDE = re.compile(r"(!?)\[([^\]]*)\]\(\.\./([^)\s]+)\)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Called by MkDocs for every page."""

    def inside(link: re.Match[str]) -> str:
        image, text, path = link.groups()
        if not image:
            return text
        if path not in files.src_uris:
            files.append(File.generated(config, path, abs_src_path=str(Path(path).absolute())))
        return f"![{text}]({path})"

    return OUTSIDE.sub(inside, markdown)
