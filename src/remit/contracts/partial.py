"""What can be typed of a document that is wrong elsewhere, so that one mistake does not hide the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import jsonschema_rs
import msgspec

from remit.contracts.document import Document, places
from remit.contracts.schema import Schema, strict_schema
from remit.values import Json, Path

_ROUNDS = 64


@dataclass(frozen=True, kw_only=True)
class Partial:
    """The fields of a struct that could be typed. Optional parts that are wrong are left out of them.

    `whole` says that nothing was left out, so that `values` are all fields. `dropped` holds, for each list that lost
    items, which ones, so that `origin` can lead back to the document.
    """

    values: Mapping[str, Any]
    whole: bool
    dropped: Mapping[Path, frozenset[int]] = field(default_factory=dict[Path, "frozenset[int]"])

    def origin(self, path: Path) -> Path:
        """The path in the document of what stands at `path` in the values."""
        found: Path = ()
        for part in path:
            gone = self.dropped.get(found, frozenset[int]())
            found = (*found, _nth_kept(part, gone) if isinstance(part, int) and gone else part)
        return found


def _nth_kept(index: int, gone: frozenset[int]) -> int:
    at = 0
    while True:
        if at not in gone:
            if index == 0:
                return at
            index -= 1
        at += 1


def partial(document: Document, kind: type[msgspec.Struct]) -> Partial:
    """Type as much of `document` as is right."""
    if document.is_broken(()) or not isinstance(document.value, dict):
        return Partial(values={}, whole=False)
    salvage = _Salvage(document, strict_schema(kind))
    root: dict[str, Json] = salvage.value
    values: dict[str, Any] = {}
    for each in msgspec.structs.fields(kind):
        if each.encode_name in root:
            try:
                values[each.name] = msgspec.convert(root[each.encode_name], each.type)
            except msgspec.ValidationError:
                salvage.whole = False
        elif not each.required:
            values[each.name] = each.default_factory() if each.default is msgspec.NODEFAULT else each.default
        else:
            salvage.whole = False
    return Partial(values=values, whole=salvage.whole, dropped=salvage.dropped)


class _Salvage:
    """Takes out, round by round, the smallest optional part around each error."""

    def __init__(self, document: Document, schema: Schema) -> None:
        self._schema = schema
        self._validator = jsonschema_rs.Draft202012Validator(schema)
        self._gone: dict[Path, set[int]] = {}
        self.value: Json = msgspec.json.decode(msgspec.json.encode(document.value))
        self.whole = True
        self._take_out(document.broken)
        for _ in range(_ROUNDS):
            paths = set(self._wrong())
            if not paths:
                break
            self._take_out(paths)
        else:
            self.value = {}

    @property
    def dropped(self) -> dict[Path, frozenset[int]]:
        return {path: frozenset(items) for path, items in self._gone.items()}

    def _wrong(self) -> Iterator[Path]:
        for error in self._validator.iter_errors(self.value):
            path = tuple(error.instance_path)
            match error.kind.name:
                case "additionalProperties":
                    yield from ((*path, key) for key in error.kind.as_dict()["unexpected"])
                case "required" if not path:
                    continue
                case _:
                    yield path
        yield from self._nulls()

    def _nulls(self) -> Iterator[Path]:
        return (path for path, value in places(self.value) if value is None)

    def _take_out(self, paths: Iterable[Path]) -> None:
        parts = {self._smallest_optional(path) for path in paths}
        self.whole = self.whole and not parts
        # Last first, so that the places of the rest stay true; what lies in a part goes with it.
        for part in sorted(parts, key=_order, reverse=True):
            if not any(part[:length] in parts for length in range(1, len(part))):
                self._delete(part)

    def _smallest_optional(self, path: Path) -> Path:
        lengths = range(len(path), 0, -1)
        return next((path[:length] for length in lengths if self._is_optional(path[:length])), ())

    def _is_optional(self, path: Path) -> bool:
        if len(path) == 1:
            return True
        holder = self._schema_at(path[:-1])
        return path[-1] not in holder.get("required", ())

    def _schema_at(self, path: Path) -> Schema:
        place = self._resolve(self._schema)
        for part in path:
            if isinstance(part, int):
                found: Any = place.get("items", {})
            else:
                found = place.get("properties", {}).get(part, place.get("additionalProperties", {}))
            place = self._resolve(cast("Schema", found) if isinstance(found, dict) else {})
        return place

    def _resolve(self, place: Schema) -> Schema:
        reference = place.get("$ref")
        return self._schema["$defs"][reference.rpartition("/")[2]] if isinstance(reference, str) else place

    def _delete(self, path: Path) -> None:
        holder = self.value
        if not path:
            self.value = {}
            return
        for part in path[:-1]:
            try:
                holder = holder[part]
            except (KeyError, IndexError, TypeError):
                return
        key = path[-1]
        if isinstance(holder, dict):
            cast("dict[str, Json]", holder).pop(str(key), None)
        elif isinstance(holder, list) and isinstance(key, int):
            del cast("list[Json]", holder)[key]
            origin = self._origin(path)
            self._gone.setdefault(origin[:-1], set()).add(int(origin[-1]))

    def _origin(self, path: Path) -> Path:
        return Partial(values={}, whole=False, dropped=self.dropped).origin(path)


def _order(path: Path) -> tuple[tuple[int, int, str], ...]:
    return tuple((1, part, "") if isinstance(part, int) else (0, 0, part) for part in path)
