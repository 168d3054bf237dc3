"""XML as a tree, from people one doesn't know: no document types, so no entities, and nothing huge.

Python's own expat is driven directly. A document that declares a type is refused at the declaration, before any entity
could be expanded or fetched; everything else is bounded by size, depth and number of elements.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import NoReturn
from xml.parsers import expat

from remit.errors import RemitError

MAX_BYTES = 10 * 1024 * 1024
MAX_ELEMENTS = 200_000
MAX_DEPTH = 64
_SEPARATOR = "\n"
"""Between namespace and name: no namespace can hold one."""


class InvoiceUnreadable(RemitError):
    """A file that is no invoice one could read; `code` says of what kind the trouble is."""

    code = "invoice_unreadable"


class Element:
    """An element: its name without the namespace, its attributes, its text and its elements in order."""

    __slots__ = ("attributes", "children", "name", "namespace", "pieces")

    def __init__(self, namespace: str, name: str, attributes: dict[str, str]) -> None:
        self.namespace = namespace
        self.name = name
        self.attributes = attributes
        self.children: list[Element] = []
        self.pieces: list[str] = []

    @property
    def text(self) -> str:
        """The text without the blanks around it."""
        return "".join(self.pieces).strip()

    def all(self, *path: str) -> Iterator[Element]:
        """Every element at a path of names."""
        if not path:
            yield self
            return
        for child in self.children:
            if child.name == path[0]:
                yield from child.all(*path[1:])


def parse_tree(data: bytes, namespaces: Set[str]) -> Element:
    """The root of a document. Elements of other `namespaces` (extensions) are left out with all that they hold.

    Raises `InvoiceUnreadable` with a code: `too_large`; `document_type` for one that declares a type or an entity;
    `not_xml`.
    """
    if len(data) > MAX_BYTES:
        raise InvoiceUnreadable(f"the file has {len(data)} bytes; at most {MAX_BYTES} are read", code="too_large")
    builder = _Builder(namespaces)
    parser = expat.ParserCreate(namespace_separator=_SEPARATOR)
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.characters
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    parser.ExternalEntityRefHandler = _refuse
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise InvoiceUnreadable(f"the file is not XML: {error}", code="not_xml") from error
    except (LookupError, ValueError) as error:
        # An encoding that nobody knows, or one that only looks like text.
        raise InvoiceUnreadable(f"the file's encoding can't be read: {error}", code="not_xml") from error
    assert builder.root is not None
    return builder.root


def _refuse(*_: object) -> NoReturn:
    raise InvoiceUnreadable("the file declares a document type, which no invoice needs", code="document_type")


class _Builder:
    def __init__(self, namespaces: Set[str]) -> None:
        self.root: Element | None = None
        self._namespaces = namespaces
        self._open: list[Element] = []
        self._count = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS or len(self._open) >= MAX_DEPTH:
            message = f"the file holds more than {MAX_ELEMENTS} elements, or more than {MAX_DEPTH} within each other"
            raise InvoiceUnreadable(message, code="too_large")
        namespace, _, name = tag.rpartition(_SEPARATOR)
        element = Element(namespace, name, attributes)
        if not self._open:
            self.root = element
        elif namespace in self._namespaces:
            self._open[-1].children.append(element)
        self._open.append(element)

    def end(self, _tag: str) -> None:
        self._open.pop()

    def characters(self, text: str) -> None:
        self._open[-1].pieces.append(text)
