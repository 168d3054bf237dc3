"""Checking the events of an exported file, which verify without the database they come from."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, cast

from remit_verify.checking import LARGEST_SEQ, TELLING, Checking
from remit_verify.header import read_header, read_json
from remit_verify.report import Finding

_FIELDS = {"seq", "header", "salt", "body"}


class ExportChecker(Checking):
    """Checks the lines of an exported file, all of one tenant."""

    def __init__(self, tenant: str) -> None:
        super().__init__()
        self._tenant = tenant

    def lines(self, first: int, lines: list[bytes]) -> None:
        """Check the lines of a file from its line `first` on."""
        for number, line in enumerate(lines, first):
            try:
                value = read_json(line.rstrip(b"\n"))
                if not isinstance(value, dict) or set(cast("dict[str, Any]", value)) != _FIELDS:
                    raise ValueError("it is not `seq`, `header`, `salt` and `body`")
            except ValueError as error:
                self.stretch.findings.add(
                    Finding(code="line_form", wrong=f"it can't be read: {error}", where=f"line {number}")
                )
                continue
            event = cast("dict[str, Any]", value)
            self._event(event["seq"], event["header"], event["salt"], event["body"])

    def _event(self, seq: Any, header: Any, salt: Any, body: Any) -> None:
        """Check an event of an exported file: it has a header and perhaps a body, and no row."""
        place = seq if type(seq) is int and 0 < seq <= LARGEST_SEQ else 0
        self.stretch.events += 1
        try:
            data = cast("str", header).encode()
            fields = read_header(data)
        except (ValueError, AttributeError) as error:
            self.add("header_form", ("", "", None, place), f"its header can't be read: {error}")
            if isinstance(header, str):
                data = header.encode("utf-8", "surrogatepass")
                self.leaf(self._tenant, sha256(b"\0" + data).digest(), place)
            return
        tenant, run, n = fields["tenant"], fields["run"], fields["n"]
        ident = (tenant, run, n, place)
        leaf = sha256(b"\0" + data).digest()
        # All events of a file are of the one tenant, whatever a header says.
        self.leaf(self._tenant, leaf, place)
        if tenant != (self._tenant):
            self.add("columns_differ", ident, f"it is of tenant `{tenant}`, and the file of `{self._tenant}`")
        self.chain(place, tenant, run, n, leaf, fields)
        text = self._body(ident, fields, salt, body)
        if fields["type"] in TELLING:
            self.tell(place, fields, text)

    def _body(self, ident: tuple[Any, ...], fields: dict[str, Any], salt: Any, body: Any) -> bytes | None:
        if salt is None and body is None:
            self.stretch.erased += 1
            self.stretch.gone.add(fields["run"])
            return None
        try:
            text = cast("str", body).encode()
            salted = bytes.fromhex(cast("str", salt))
            if len(salted) != 16 or salted.hex() != salt:
                raise ValueError("its salt is not 16 bytes in hex")
        except (ValueError, AttributeError, TypeError) as error:
            self.add("body_wrong", ident, f"its body can't be read: {error}")
            return None
        self.stretch.bodies += 1
        if sha256(salted + text).hexdigest() != fields["body"]:
            self.add("body_wrong", ident, "its body is not the one that its header names")
            return None
        return text
