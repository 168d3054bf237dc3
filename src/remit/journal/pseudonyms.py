"""How a pseudonym is written, `<email:jphkaibomnac>`, and which class of data it stands for: one mapping for all who ask."""

from __future__ import annotations

import re
from collections.abc import Iterator

PSEUDONYM = re.compile(r"<([a-z][a-z_-]*):[a-p]{12}>")
"""The group is the class as it is shown."""

# A class is not shown as a word that a detector takes for the name of a secret: `<secret:…>` would be a find of its own.
_SHOWN = {"secret": "concealed"}
_CLASSES = {shown: kind for kind, shown in _SHOWN.items()}


def shown_class(kind: str) -> str:
    """A class as pseudonyms name it."""
    return _SHOWN.get(kind, kind)


def class_of(pseudonym: str) -> str:
    """The class that a text which is a pseudonym as a whole stands for; empty for any other text."""
    found = PSEUDONYM.fullmatch(pseudonym)
    return _CLASSES.get(found[1], found[1]) if found else ""


def classes_in(text: str) -> Iterator[str]:
    """The classes of all pseudonyms in a text."""
    for found in PSEUDONYM.finditer(text):
        yield _CLASSES.get(found[1], found[1])
