"""Headers: the bytes of an event that are hashed, and the fields that may stand in them."""

from __future__ import annotations

import json
import re
from typing import Any, Final, cast

_HEX = re.compile(r"[0-9a-f]{64}").fullmatch
_LARGEST = 2**63 - 1

REQUIRED: Final = frozenset({"v", "tenant", "run", "n", "prev", "at", "type", "actor", "body"})
_TEXTS = ("tenant", "run", "type", "actor")
_OPTIONAL_TEXTS = frozenset({"span", "parent", "verdict"})
_OPTIONAL_NUMBERS = frozenset({"cost_microusd", "tokens_in", "tokens_out", "latency_us"})


class HeaderError(ValueError):
    """A header that is not written as the specification has it."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise HeaderError("it names a field twice")
    return made


def _no_constant(name: str) -> Any:
    raise HeaderError(f"`{name}` is no JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)


def read_json(data: bytes | str) -> Any:
    """A JSON value without white space around it, and without a name that stands twice. Raises `ValueError`."""
    text = data if isinstance(data, str) else data.decode()
    try:
        # Not `decode`, which would pass over white space around the value.
        value, end = _decoder.raw_decode(text)
    except RecursionError:
        raise HeaderError("it is nested too deeply") from None
    if end != len(text):
        raise HeaderError("something stands behind its end")
    return value


def read_header(data: bytes | str) -> dict[str, Any]:
    """The fields of a header, each of its type and none with its default. Raises `ValueError`."""
    value = read_json(data)
    if type(value) is not dict:
        raise HeaderError("it is no object")
    header = cast("dict[str, Any]", value)
    try:
        n, prev, body = header["n"], header["prev"], header["body"]
        # `True == 1`, and is no number.
        if type(header["v"]) is not int or header["v"] != 1:
            raise HeaderError(f"its version {_shown(header['v'])} is not 1")
        if type(n) is not int or not 1 <= n <= _LARGEST:
            raise HeaderError("its `n` is no number from 1")
        if type(header["at"]) is not int or not -_LARGEST <= header["at"] <= _LARGEST:
            raise HeaderError("its `at` is no time")
        for name in _TEXTS:
            if type(header[name]) is not str:
                raise HeaderError(f"its `{name}` is no text")
    except KeyError as error:
        raise HeaderError(f"it lacks `{error.args[0]}`") from None
    if not (prev == "" if n == 1 else type(prev) is str and _HEX(prev)):
        raise HeaderError("its `prev` is not the hash of an event before it")
    if type(body) is not str or not _HEX(body):
        raise HeaderError("its `body` is no hash")
    if len(header) != len(REQUIRED):
        _check_optional(header)
    return header


def _check_optional(header: dict[str, Any]) -> None:
    for name, value in header.items():
        if name in REQUIRED:
            continue
        if name in _OPTIONAL_TEXTS:
            good = type(value) is str and value != ""
        elif name in _OPTIONAL_NUMBERS:
            good = type(value) is int and value != 0
        elif name == "refs":
            good = _are_refs(value)
        elif name == "sealed":
            good = type(value) is str and _HEX(value) is not None
        else:
            raise HeaderError(f"no field `{_shown(name)}` may stand in it")
        if not good:
            raise HeaderError(f"its `{name}` is not of its type, or stands there with its default")


def _are_refs(value: Any) -> bool:
    if type(value) is not dict or not value:
        return False
    return all(type(one) is str for one in cast("dict[str, Any]", value).values())


def _shown(value: Any) -> str:
    return str(value)[:40]
