"""Values picked out of an element, with a note of whatever stands there in another form than it should."""

from __future__ import annotations

import re
from decimal import Decimal

from remit.connectors.en16931.tree import Element

_DECIMAL = re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]{0,12})?|\.[0-9]{1,12})", re.ASCII)


class Picker:
    """Picks texts and amounts by path. `malformed` collects what is wrong with them, in words."""

    def __init__(self) -> None:
        self.malformed: list[str] = []

    def one(self, element: Element | None, *path: str) -> Element | None:
        """The element at a path. Where several stand, the first: which of them counts is then noted as open."""
        if element is None:
            return None
        found = list(element.all(*path))
        if len(found) > 1:
            self.malformed.append(f"`{'/'.join(path)}` stands there {len(found)} times, once is meant")
        return found[0] if found else None

    def text(self, element: Element | None, *path: str) -> str | None:
        """The text at a path; `None` where there is none, or only blanks."""
        found = self.one(element, *path)
        return found.text or None if found is not None else None

    def amount(self, element: Element | None, *path: str) -> Decimal | None:
        """The number at a path, exactly."""
        text = self.text(element, *path)
        if text is None:
            return None
        if _DECIMAL.fullmatch(text) is None:
            self.malformed.append(f"`{'/'.join(path)}` holds no decimal number")
            return None
        return Decimal(text)

    def attribute(self, element: Element | None, name: str, *path: str) -> str | None:
        """An attribute of the element at a path."""
        found = self.one(element, *path)
        return found.attributes.get(name) or None if found is not None else None
