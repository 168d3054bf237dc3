"""A small account directory for the example: a JSON service over HTTP with its own process and its own data.

    python services/directory.py --data data/directory.json --state DIR/state.json --secret-file DIR/secret

It listens on loopback only, prints `{"url": …}` once it answers, and ends on SIGTERM. Every request but
`GET /health` carries `Authorization: Bearer <secret>`.

    GET  /accounts?tenant=T&email=E   {"accounts": […]}: those of a tenant with this address
    GET  /accounts/NAME               one account, with an ETag
    POST /accounts/NAME/reset         {"reason": …} with `Idempotency-Key`, and `If-Match` if read before
    GET  /resets/KEY                  what became of the reset with this key

A reset ends all sessions, unlocks the account and mails its owner a new way in: nothing takes that back. The
same key again gives the first answer again; the same key for something else is refused. Errors are
`{"error": CODE, "message": …}`.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import re
import signal
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

Record = dict[str, Any]

MAX_BODY_BYTES = 4096
_ACCOUNT = re.compile(r"[a-z][a-z0-9.-]{2,31}", re.ASCII)
_KEY = re.compile(r"[!-~]{8,200}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A status, a JSON body and, of one account, its version."""

    status: HTTPStatus
    body: Record
    etag: str | None = None


def refusal(status: HTTPStatus, code: str, message: str) -> Reply:
    """An answer that says no."""
    return Reply(status=status, body={"error": code, "message": message})


def version(account: Record) -> str:
    """The ETag of an account: it changes with anything about it."""
    text = json.dumps(account, sort_keys=True)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:20]}"'


@dataclass(frozen=True, kw_only=True)
class Directory:
    """Accounts by name and resets by key. A change is on disk before it is answered."""

    accounts: dict[str, Record]
    resets: dict[str, Record]
    state: Path
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def load(cls, data: Path, state: Path) -> Directory:
        """The state as it was left, at first the bundled data. Raises `OSError`, `ValueError`, `KeyError`."""
        source = json.loads((state if state.exists() else data).read_text(encoding="utf-8"))
        accounts = {account["account"]: account for account in source["accounts"]}
        return cls(accounts=accounts, resets=source.get("resets", {}), state=state)

    def find(self, tenant: str, email: str) -> Reply:
        """All accounts of `tenant` with that address, whatever its case."""
        with self.lock:
            found = [
                account
                for account in self.accounts.values()
                if account["tenant"] == tenant and account["email"].casefold() == email.casefold()
            ]
        return Reply(status=HTTPStatus.OK, body={"accounts": found})

    def get(self, name: str) -> Reply:
        """One account."""
        with self.lock:
            account = self.accounts.get(name)
        if account is None:
            return refusal(HTTPStatus.NOT_FOUND, "not_found", f"there is no account `{name}`")
        return Reply(status=HTTPStatus.OK, body=account, etag=version(account))

    def get_reset(self, key: str) -> Reply:
        """The reset that was asked for with `key`."""
        with self.lock:
            reset = self.resets.get(key)
        if reset is None:
            return refusal(HTTPStatus.NOT_FOUND, "not_found", "there is no reset with this key")
        return Reply(status=HTTPStatus.OK, body=reset)

    def reset(self, name: str, *, key: str, reason: str, expected: str | None) -> Reply:
        """Reset the access to an account, once for each key."""
        with self.lock:
            earlier = self.resets.get(key)
            if earlier is not None:
                if (earlier["account"], earlier["reason"]) == (name, reason):
                    return Reply(status=HTTPStatus.OK, body=earlier)
                return refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "key_reused", "this key was used for something else")
            account = self.accounts.get(name)
            if account is None:
                return refusal(HTTPStatus.NOT_FOUND, "not_found", f"there is no account `{name}`")
            if expected is not None and expected != version(account):
                return refusal(HTTPStatus.PRECONDITION_FAILED, "changed", f"account `{name}` changed meanwhile")
            if account["status"] == "disabled":
                return refusal(HTTPStatus.CONFLICT, "disabled", f"account `{name}` is disabled")
            number = len(self.resets) + 1
            now = datetime.now(UTC).isoformat(timespec="seconds")
            done = {"reset": number, "account": name, "reason": reason, "at": now}
            changed = account | {"status": "active", "last_reset": number}
            self._save({**self.accounts, name: changed}, {**self.resets, key: done})
            self.accounts[name], self.resets[key] = changed, done
        return Reply(status=HTTPStatus.CREATED, body=done)

    def _save(self, accounts: dict[str, Record], resets: dict[str, Record]) -> None:
        text = json.dumps({"accounts": list(accounts.values()), "resets": resets}, ensure_ascii=False, indent=1)
        draft = self.state.with_suffix(".draft")
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.state)
        folder = os.open(self.state.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class Handler(BaseHTTPRequestHandler):
    """Takes a request apart, asks the directory, and writes the answer."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    directory: Directory
    secret: bytes

    def do_GET(self) -> None:
        """Answer a question."""
        self._send(self._authorized() or self._read())

    def do_POST(self) -> None:
        """Change something."""
        try:
            reply = self._authorized() or self._write()
        except OSError as error:
            reply = refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "storage", f"can't write: {error.strerror}")
        # A body that was refused may still stand unread in the connection.
        self.close_connection = self.close_connection or reply.status >= HTTPStatus.BAD_REQUEST
        self._send(reply)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: paths hold addresses of people."""

    def _authorized(self) -> Reply | None:
        if self.command == "GET" and self.path == "/health":
            return Reply(status=HTTPStatus.OK, body={"status": "ok"})
        given = self.headers.get("Authorization", "").encode("latin-1", "replace")
        if hmac.compare_digest(given, b"Bearer " + self.secret):
            return None
        return refusal(HTTPStatus.UNAUTHORIZED, "unauthorized", "a bearer secret is needed")

    def _read(self) -> Reply:
        url = urlsplit(self.path)
        match [unquote(part) for part in url.path.split("/")[1:]]:
            case ["accounts"]:
                query = parse_qs(url.query)
                if query.keys() != {"tenant", "email"} or any(len(given) != 1 for given in query.values()):
                    return refusal(HTTPStatus.BAD_REQUEST, "bad_request", "give one `tenant` and one `email`")
                return self.directory.find(query["tenant"][0], query["email"][0])
            case ["accounts", name]:
                return self.directory.get(name)
            case ["resets", key]:
                return self.directory.get_reset(key)
            case _:
                return refusal(HTTPStatus.NOT_FOUND, "not_found", "there is no such page")

    def _write(self) -> Reply:
        match [unquote(part) for part in self.path.split("/")[1:]]:
            case ["accounts", name, "reset"] if _ACCOUNT.fullmatch(name):
                pass
            case _:
                return refusal(HTTPStatus.NOT_FOUND, "not_found", "there is no such page")
        key = self.headers.get("Idempotency-Key", "")
        if not _KEY.fullmatch(key):
            return refusal(HTTPStatus.BAD_REQUEST, "bad_request", "an `Idempotency-Key` of 8 to 200 signs is needed")
        body = self._body()
        if isinstance(body, Reply):
            return body
        reason = body.get("reason")
        if body.keys() != {"reason"} or not isinstance(reason, str) or not 5 <= len(reason) <= 200:
            return refusal(HTTPStatus.BAD_REQUEST, "bad_request", "give a `reason` of 5 to 200 signs, nothing else")
        return self.directory.reset(name, key=key, reason=reason, expected=self.headers.get("If-Match"))

    def _body(self) -> Record | Reply:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            return refusal(HTTPStatus.LENGTH_REQUIRED, "bad_request", "a `Content-Length` is needed")
        if int(length) > MAX_BODY_BYTES:
            return refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", f"at most {MAX_BODY_BYTES} bytes")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            return refusal(HTTPStatus.BAD_REQUEST, "bad_request", "the body is not JSON")
        if not isinstance(body, dict):
            return refusal(HTTPStatus.BAD_REQUEST, "bad_request", "the body is not a JSON object")
        return cast("Record", body)

    def _send(self, reply: Reply) -> None:
        data = json.dumps(reply.body, ensure_ascii=False).encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        if reply.etag is not None:
            self.send_header("ETag", reply.etag)
        if reply.status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(data)


def main() -> int:
    """Serve until SIGTERM or SIGINT. Returns 2 if the files are not as they should be."""
    parser = argparse.ArgumentParser(description="the account directory of the example, on loopback")
    parser.add_argument("--data", type=Path, required=True, help="the accounts at first")
    parser.add_argument("--state", type=Path, required=True, help="where they are kept; made if it is not there")
    parser.add_argument("--secret-file", type=Path, required=True, help="a file that holds the bearer secret")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free one")
    options = parser.parse_args()
    try:
        directory = Directory.load(options.data, options.state)
    except OSError as error:
        sys.stderr.write(f"directory: can't start: `{error.filename}`: {error.strerror}\n")
        return 2
    except (ValueError, KeyError, TypeError) as error:
        source = options.state if options.state.exists() else options.data
        sys.stderr.write(f"directory: can't start: `{source}` holds no accounts: {error!r}\n")
        return 2
    try:
        secret = options.secret_file.read_bytes().strip()
    except OSError as error:
        sys.stderr.write(f"directory: can't start: `{error.filename}`: {error.strerror}\n")
        return 2
    if len(secret) < 16:
        sys.stderr.write(f"directory: the secret in `{options.secret_file}` is shorter than 16 bytes\n")
        return 2
    handler = type("BoundHandler", (Handler,), {"directory": directory, "secret": secret})
    with ThreadingHTTPServer(("127.0.0.1", options.port), handler) as server:
        stop = threading.Thread(target=server.shutdown)

        def end(_number: int, _frame: FrameType | None) -> None:
            # From a thread, because `shutdown` waits for the loop that this one runs.
            if stop.ident is None:
                stop.start()

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{server.server_address[1]}"}) + "\n")
        sys.stdout.flush()
        server.serve_forever(poll_interval=0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
