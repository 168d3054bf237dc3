"""The tree over HTTP, for whoever wants to watch it: checkpoint and tiles, as c2sp.org/tlog-tiles has them.

Tiles are hashes and say nothing of what the events hold. Read only, without state, and never further than the checkpoint.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

from remit.errors import RemitError
from remit.journal.merkle import WIDTH
from remit.journal.proofs import Proofs

_TILE = re.compile(r"/tile/([0-9]|[1-5][0-9]|6[0-3])/((?:x[0-9]{3}/){0,4}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")
"""A position below 2^40 has five groups of digits at most; more are no part of any tree."""
_TEXT, _BYTES = "text/plain; charset=utf-8", "application/octet-stream"


class TileServer(ThreadingHTTPServer):
    """Serves one tenant's tree. `server_close` ends it; each request reads the database anew."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], proofs: Proofs) -> None:
        super().__init__(address, _Handler)
        self.proofs = proofs


class _Handler(BaseHTTPRequestHandler):
    server_version = "remit"
    sys_version = ""
    timeout = 20

    @property
    def _proofs(self) -> Proofs:
        return cast("TileServer", self.server).proofs

    def do_GET(self) -> None:
        try:
            found = self._find()
        except RemitError:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"the record can't be read now\n", _TEXT, "no-store")
            return
        if found is None:
            self._answer(HTTPStatus.NOT_FOUND, b"there is no such part of the tree\n", _TEXT, "no-store")
        else:
            self._answer(HTTPStatus.OK, *found)

    def _find(self) -> tuple[bytes, str, str] | None:
        if self.path == "/health":
            self._proofs.head()
            return b"ok\n", _TEXT, "no-store"
        if self.path == "/checkpoint":
            note = self._proofs.head().note
            return (note.encode(), _TEXT, "no-cache") if note else None
        asked = _TILE.fullmatch(self.path)
        if asked is None:
            return None
        level, position = int(asked[1]), int(asked[2].replace("/", "").replace("x", ""))
        width = int(asked[3] or WIDTH)
        if width > WIDTH or (asked[3] and width == WIDTH) or position >= 2**40:
            return None
        # A tile may already hold more than the checkpoint covers; what it doesn't cover is nobody's business yet.
        if (position * WIDTH + width) * WIDTH**level > self._proofs.head().size:
            return None
        hashes = self._proofs.tile(level, position, width)
        return None if hashes is None else (hashes, _BYTES, "public, max-age=31536000, immutable")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str, cache: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", cache)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the library gives it
        """Who looked at the tree is not kept."""
