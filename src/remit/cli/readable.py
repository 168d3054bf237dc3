"""Values of the record as people read them: what a text holds can't be mistaken for another value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

from remit.terminal import printable

_BARE = re.compile(r"<?\w[\w.@:/+#%>-]*", re.A)
_NAME = re.compile(r"[\w.:/\[\]-]+", re.A)
_LIKE_SOMETHING_ELSE = re.compile(r"none|yes|no|true|false|null|[+-]?[\d.]+%?")
_ITEMS_SHOWN = 5


def value_text(value: Any, limit: int | None = None) -> str:
    """One value. Text is bare where it is one plain word, and quoted otherwise; `limit`: the most characters of a text."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return str(value)
        case str():
            return _quoted(value, limit)
        case list():
            return _list(cast("list[Any]", value), limit)
        case dict():
            return "empty" if not value else " ".join(pairs(cast("dict[str, Any]", value), limit))
        case _:
            return _quoted(str(value), limit)


def name_text(name: str, limit: int | None = None) -> str:
    """A name or path that somebody else gave: bare where it looks like one, quoted otherwise."""
    return name if _NAME.fullmatch(name) and len(name) <= (limit or len(name)) else _quoted(name, limit)


def _quoted(text: str, limit: int | None) -> str:
    shown = printable(text)
    if limit is not None and len(shown) > limit:
        shown = f"{shown[: limit - 1]}…"
    if _BARE.fullmatch(shown) and not _LIKE_SOMETHING_ELSE.fullmatch(shown):
        return shown
    return '"' + shown.replace('"', '\\"') + '"'


def _list(items: list[Any], limit: int | None) -> str:
    if not items:
        return "empty"
    plain = not any(isinstance(item, list | dict) for item in items)
    if plain and (limit is None or len(items) <= _ITEMS_SHOWN):
        return f"[{', '.join(value_text(item, limit) for item in items)}]"
    return f"{len(items)} item{'' if len(items) == 1 else 's'}"


def pairs(value: dict[str, Any], limit: int | None = None, prefix: str = "") -> Iterator[str]:
    """`issue=12`, `changes.category=network`, one after the other, units in words."""
    for key, item in value.items():
        name = f"{prefix}{name_text(key, limit)}"
        if isinstance(item, dict) and item:
            yield from pairs(cast("dict[str, Any]", item), limit, f"{name}.")
            continue
        yield "=".join(in_words(name, item, limit))


def in_words(name: str, value: Any, limit: int | None = None) -> tuple[str, str]:
    """A name and its value, with the unit at the value: `confidence_per_mille=985` is `confidence` of `98.5%`."""
    if type(value) is int and name.endswith("_per_mille"):
        return name.removesuffix("_per_mille"), f"{value / 10:g}%"
    if type(value) is int and name.endswith("_microusd"):
        return name.removesuffix("_microusd"), f"{value / 1e6:g} USD"
    return name, value_text(value, limit)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value inside, by its path as provenance labels name it: `changes.category`, `items[0].price`."""
    if isinstance(value, dict) and value:
        for key, item in cast("dict[str, Any]", value).items():
            yield from leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for i, item in enumerate(cast("list[Any]", value)):
            yield from leaves(item, f"{path}[{i}]")
    else:
        yield path, value
