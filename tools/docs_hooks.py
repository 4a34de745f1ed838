"""Hooks of MkDocs: how a page of the site differs from the page in the repository."""

import re
from posixpath import dirname, join, normpath
from typing import Any

# a page in the repository names its translation at its head; the site has a switch for that
OTHER_LANGUAGE = re.compile(r"^(?:한국어|English): \[.*\]\(.*\)\n\n?", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Remove the link to the other language, and replace each link to a file outside docs/ by its text."""
    folder = dirname(page.file.src_uri)

    def inside(link: re.Match[str]) -> str:
        text, target = link.groups()
        is_outside = "://" not in target and normpath(join(folder, target)).startswith("..")
        return text if is_outside else link.group()

    return LINK.sub(inside, OTHER_LANGUAGE.sub("", markdown))
