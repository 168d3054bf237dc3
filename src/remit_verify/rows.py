"""Checking the rows of a database: columns against header, body and originals under the keys of their run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256
from operator import itemgetter
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from remit_verify.checking import TELLING, Checking
from remit_verify.header import read_header
from remit_verify.keys import Undecryptable, salted_hash, text_of, unwrap

Row = tuple[Any, ...]
"""`seq, tenant, run, n, type, at, hash, header, body, sealed` of the table `events`, of whatever types stand there."""

WrappedKeys = Callable[[list[str]], Iterable[tuple[Any, ...]]]
"""Asks for `run, body_key, sealed_key` of these runs."""

Opened = tuple[AESGCM | None, AESGCM | None, str]
"""The body key and the sealed key of a run, `None` where destroyed, and why one of them does not open."""

_MOST_OPEN_KEYS = 5_000
_COLUMNS = ("tenant", "run", "n", "type", "at")
_columns = itemgetter(*_COLUMNS)
_SOUND = frozenset((int, str, str, int, str, int, bytes, bytes, bytes, sealed) for sealed in (bytes, type(None)))


class RunKeys:
    """The keys of runs, opened once and kept while they are needed; `None` where one was destroyed or does not open."""

    def __init__(self, master: bytes, wrapped: WrappedKeys) -> None:
        self._master = AESGCM(master)
        self._wrapped = wrapped
        self._open: dict[str, Opened] = {}

    def need(self, runs: set[str]) -> dict[str, Opened]:
        """Open the keys of these runs: body key, sealed key, and why one of them does not open."""
        missing = [run for run in runs if run not in self._open]
        if missing:
            if len(self._open) > _MOST_OPEN_KEYS:
                self._open.clear()
                missing = list(runs)
            for run, body, sealed in self._wrapped(missing):
                self._open[run] = self._unwrap(run, body, sealed)
            for run in missing:
                # A run without a row: the verifying process finds that out by itself.
                self._open.setdefault(run, (None, None, ""))
        return self._open

    def _unwrap(self, run: str, body: Any, sealed: Any) -> Opened:
        opened: list[AESGCM | None] = []
        why = ""
        for wrapped, part in ((body, "body"), (sealed, "sealed")):
            try:
                opened.append(None if wrapped is None else unwrap(self._master, wrapped, f"{part}/{run}"))
            except Undecryptable as error:
                opened.append(None)
                why = f"its `{part}_key` can't be unwrapped: {error}"
        return opened[0], opened[1], why


class RowChecker(Checking):
    """Checks rows of the table `events`. `tenant`: pass over those of others."""

    def __init__(self, run_keys: RunKeys, tenant: str | None) -> None:
        super().__init__()
        self._keys = run_keys
        self._tenant = tenant

    def rows(self, rows: list[Row]) -> None:
        """Check rows of the table `events`, in the order of `seq`."""
        if self._tenant is not None:
            rows = [row for row in rows if row[1] == self._tenant]
        keys = self._keys.need({row[2] for row in rows if type(row[2]) is str})
        for row in rows:
            if not self._is_sound(row):
                continue
            seq, tenant, run, n, _, _, stored, header, body, sealed = row
            self.leaf(tenant, stored, seq)
            fields = self._header(row, header)
            self.chain(seq, tenant, run, n, stored, fields)
            if fields is not None:
                plain = self._contents((tenant, run, n, seq), fields, (body, sealed), keys[run])
                if fields["type"] in TELLING:
                    self.tell(seq, fields, None if plain is None else text_of(plain))

    def _is_sound(self, row: Row) -> bool:
        """Whether each column is of its type; what is not can't be checked any further."""
        self.stretch.events += 1
        if tuple(map(type, row)) in _SOUND and len(row[6]) == 32:
            return True
        seq, tenant, run, n, kind, at, stored, header, body, sealed = row
        wrong = (
            [name for name, value in (("tenant", tenant), ("run", run), ("type", kind)) if type(value) is not str]
            + [name for name, value in (("seq", seq), ("n", n), ("at", at)) if type(value) is not int]
            + [name for name, value in (("hash", stored), ("header", header), ("body", body)) if type(value) is not bytes]
        )
        if sealed is not None and type(sealed) is not bytes:
            wrong.append("sealed")
        named = ", ".join(f"`{name}`" for name in wrong) or "`hash`"
        self.add("row_form", (tenant, run, n, seq), f"{named} of its row is not of the type that it should be")
        if type(tenant) is str and type(seq) is int and type(header) is bytes:
            # It keeps its place in the tree, so that what follows is compared with its own leaves.
            self.leaf(tenant, sha256(b"\0" + header).digest(), seq)
        return False

    def _header(self, row: Row, header: bytes) -> dict[str, Any] | None:
        """The fields of the header, if it can be read; compared with the columns and the stored hash."""
        seq, tenant, run, n, kind, at, stored = row[:7]
        ident = (tenant, run, n, seq)
        if sha256(b"\0" + header).digest() != stored:
            self.add("header_hash", ident, "its header does not hash to its `hash`")
        try:
            fields = read_header(header)
        except ValueError as error:
            self.add("header_form", ident, f"its header can't be read: {error}")
            return None
        if _columns(fields) != row[1:6]:
            for name, value in zip(_COLUMNS, (tenant, run, n, kind, at), strict=True):
                if fields[name] != value:
                    self.add("columns_differ", ident, f"its column `{name}` disagrees with its header")
        return fields

    def _contents(
        self,
        place: tuple[str, str, int, int],
        fields: dict[str, Any],
        stored: tuple[bytes, bytes | None],
        keys: Opened,
    ) -> bytes | None:
        """Decrypt body and originals and compare them with the header. Returns the salted body."""
        body_key, sealed_key, why = keys
        plain = None
        if why:
            self.stretch.closed_keys[place[1]] = why
        if body_key is None:
            self.stretch.erased += not why
        else:
            self.stretch.bodies += 1
            plain = self._compare(place, "body", body_key, stored[0], fields["body"])
        named, sealed = fields.get("sealed"), stored[1]
        if (named is None) != (sealed is None):
            self.add("sealed_wrong", place, _SEALED_LACKS if sealed is None else _SEALED_TOO_MUCH)
        elif sealed is not None and sealed_key is not None:
            self._compare(place, "sealed", sealed_key, sealed, str(named))
        return plain

    def _compare(self, place: tuple[Any, ...], part: str, key: AESGCM, data: bytes, named: str) -> bytes | None:
        try:
            found, plain = salted_hash(key, data, f"{part}/{place[1]}/{place[2]}")
        except Undecryptable as error:
            self.add(f"{part}_wrong", place, f"its `{part}` can't be opened: {error}")
            return None
        if found != named:
            self.add(f"{part}_wrong", place, f"its `{part}` is not the one that its header names")
            return None
        return plain


_SEALED_LACKS = "its header names originals, and its row has none"
_SEALED_TOO_MUCH = "its row has originals, and its header names none"
