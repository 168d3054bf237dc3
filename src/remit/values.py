"""JSON values as Remit accepts them: parsed strictly, walked once, encoded in one canonical form.

An argument may be `None`, `bool`, `int` (64 bits), `float` (finite), `str` (valid Unicode), a list or a dict with
string keys. Whatever else a parser somewhere might let through (NaN, duplicate keys, lone surrogates, bottomless
nesting) is refused here, once, for every way in.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from remit.errors import RemitError

MAX_DEPTH = 32
MAX_BYTES = 256 * 1024
MAX_VALUES = 1_000_000
"""How many values one value may hold. A text is bounded by its size; what is built in Python could share its parts and
be endless without taking any room."""
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_SHOWN = 100
_type_of: Callable[[object], type[object]] = type

_encoder = msgspec.json.Encoder(order="sorted")

Json = Any
"""A value as described above. (A recursive alias makes every caller cast; the walk is what guarantees the shape.)"""

Path = tuple[str | int, ...]


class ValueRefused(RemitError):
    """A value is not acceptable JSON; the message names the place."""

    code = "value_refused"


def show_path(path: Path) -> str:
    """`("lines", 0, "amount")` as `lines[0].amount`; the empty path as `value`."""
    if len(path) == 1 and isinstance(path[0], str):
        return path[0] or "value"
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "value"


def _place(path: Path) -> str:
    """A path for a message, which must stay short and printable whatever the keys are."""
    return _shown(show_path(path))


def _shown(name: str) -> str:
    short = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
    return short.encode(errors="replace").decode()


def leaves(value: Json) -> Iterator[tuple[Path, Json]]:
    """Yield every scalar of `value` with its path, refusing what is not acceptable JSON.

    Depth first, in order. Raises `ValueRefused` at the first offending place.
    """
    kind = _type_of(value)
    if kind is dict or kind is list:
        yield from _below((), value, [1])
    else:
        _check_scalar((), value)
        yield (), value


def _below(path: Path, item: dict[Any, Json] | list[Json], count: list[int]) -> Iterator[tuple[Path, Json]]:
    """The scalars of a container. `count`, of one element: the values so far, shared by the whole walk."""
    if len(path) >= MAX_DEPTH:
        raise ValueRefused(f"`{_place(path[:4])}…` is nested more than {MAX_DEPTH} levels deep")
    if isinstance(item, dict):
        for key in item:
            if _type_of(key) is not str:
                raise ValueRefused(f"a key of `{_place(path)}` is {_type_of(key).__name__}; keys are strings")
            _check_text(path, key)
    count[0] += len(item)
    if count[0] > MAX_VALUES:
        raise ValueRefused(f"more than {MAX_VALUES:,} values in one", code="too_large")
    for name, child in item.items() if isinstance(item, dict) else enumerate(item):
        place = (*path, name)
        kind = _type_of(child)
        if kind is dict or kind is list:
            yield from _below(place, child, count)
        else:
            _check_scalar(place, child)
            yield place, child


def _check_scalar(path: Path, item: Json) -> None:
    kind = _type_of(item)
    if kind is str:
        _check_text(path, item)
    elif item is None or kind is bool:
        return
    elif kind is int:
        if not _INT_MIN <= item <= _INT_MAX:
            raise ValueRefused(f"`{_place(path)}` is outside the range of 64-bit integers")
    elif kind is float:
        if not math.isfinite(item):
            raise ValueRefused(f"`{_place(path)}` is {item}; numbers are finite")
    else:
        raise ValueRefused(f"`{_place(path)}` is {kind.__name__}, which JSON does not have")


def _check_text(path: Path, text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueRefused(f"`{_place(path)}` holds a lone surrogate, which is not valid Unicode") from error


def parse(text: str | bytes, *, limit_bytes: int = MAX_BYTES) -> Json:
    """Parse JSON text strictly: size limited, no duplicate keys, no NaN, every value acceptable.

    Raises `ValueRefused`.
    """
    size = len(text) if isinstance(text, bytes) else len(text.encode(errors="surrogatepass"))
    if size > limit_bytes:
        raise ValueRefused(f"{size:,} bytes of JSON are more than the {limit_bytes:,} allowed", code="too_large")
    try:
        # The standard parser would guess UTF-16 and UTF-32; JSON that travels is UTF-8 (RFC 8259, section 8.1).
        plain = text.decode() if isinstance(text, bytes) else text
        value = json.loads(plain, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueRefused(f"not valid JSON: {error}") from error
    for _ in leaves(value):
        pass
    return value


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, item in pairs:
        if key in found:
            raise ValueRefused(f"key `{_shown(key)}` appears twice in one object")
        found[key] = item
    return found


def _refuse_constant(name: str) -> Json:
    raise ValueRefused(f"`{name}` is not JSON; numbers are finite")


def encode(value: Json) -> bytes:
    """The canonical bytes of an accepted value: UTF-8, sorted keys, no white space."""
    return _encoder.encode(value)


def decode(data: bytes) -> Json:
    """The inverse of `encode`, for bytes that Remit wrote itself."""
    return msgspec.json.decode(data)


def digest(value: Json) -> str:
    """SHA-256 of the canonical bytes, lower-case hex."""
    return hashlib.sha256(encode(value)).hexdigest()
