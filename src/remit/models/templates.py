"""Prompts: a text with `{names}` that a call's arguments are put in for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from remit.values import Json, encode


def fill(template: str, args: Mapping[str, Json]) -> str:
    """Put the arguments where the template names them; braces inside an argument mean nothing. Texts stand as they are,
    other values as JSON, and nothing for what isn't given.
    """
    parts = template.split("{")
    filled = parts[0]
    for part in parts[1:]:
        key, closed, rest = part.partition("}")
        filled += f"{_written(args.get(key))}{rest}" if closed and key.isidentifier() else "{" + part
    return filled


def _written(value: Json) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else encode(value).decode()


def version_of(template: str, form: Json) -> str:
    """SHA-256 of a template and of the form that is asked of the answer: what a prompt's version is."""
    return hashlib.sha256(encode([template, form])).hexdigest()
