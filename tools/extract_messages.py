"""Extracts the translatable texts of Django's templates for Babel, which reads Python only."""

import io
from collections.abc import Iterator
from typing import IO, Any

from babel.messages.extract import extract_python
from django.utils.translation.template import templatize


def from_template(file: IO[bytes], keywords: Any, comment_tags: Any, options: Any) -> Iterator[Any]:
    """Yield the messages of a template, as Babel's own extractors do.

    Django's `templatize` turns the tags into calls of gettext, and all other text into X's.
    """
    source = templatize(file.read().decode("utf-8"))
    # the indentation of a page is no valid Python
    source = "\n".join(line.strip() for line in source.splitlines())
    yield from extract_python(io.BytesIO(source.encode("utf-8")), keywords, comment_tags, options)
