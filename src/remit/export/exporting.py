"""Exporting: what is copied out is put on the register first, and then leaves the building."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from remit.errors import RunError
from remit.export.formats import Format
from remit.export.lines import event_line, record_lines
from remit.export.ocsf import Ocsf
from remit.export.otlp import Encoder, Sender
from remit.export.traces import trace_of
from remit.journal.events import UNDOES, Draft, EventType
from remit.journal.leaves import Leaf, LeafReader, Selection
from remit.journal.redaction import Redactor
from remit.journal.register import SYSTEM, Register
from remit.journal.sequencer import Sequencer
from remit.values import Json


def first_of_undone(reader: LeafReader, leaves: Sequence[Leaf]) -> Leaf | None:
    """The first leaf of the run that a run undoes, if it undoes one. Raises as the reader does."""
    undone = leaves[0].header.refs.get(UNDOES)
    return None if undone is None else reader.event(undone, 1)


class Exporting:
    """Exports the record of one tenant."""

    def __init__(
        self, *, leaves: LeafReader, register: Register, sequencer: Sequencer, redactor: Redactor, version: str
    ) -> None:
        self.leaves = leaves
        self._register = register
        self._sequencer = sequencer
        self._redactor = redactor
        self._version = version
        self._announced: set[str] = set()

    async def lines(self, form: Format, selection: Selection, *, to: str, by: str | None, keys: list[str]) -> Iterator[bytes]:
        """The lines of an export, which is on record by then. `keys`: verifier keys. They are read as they are taken.

        Raises `RunError`: `record_is_whole` for a part of the record in the form that only verifies as a whole,
        `not_integrated` for that form where nothing is signed yet.
        """
        if form is Format.RECORD and not selection.is_whole:
            message = "the record verifies only as a whole; leave out `--since`, `--run`, `--last` and `--contract`"
            raise RunError(message, code="record_is_whole")
        head = await self._sequencer.integrate()
        if form is Format.RECORD and not head.note:
            message = "nothing of the record is signed yet, so an export would prove nothing; run something first"
            raise RunError(message, code="not_integrated")
        count = self.leaves.count(selection, head.seq)
        await self._note(form, selection, to=to, by=by, said={"events": count})
        leaves = self.leaves.leaves(selection, upto=head.seq)
        if form is Format.RECORD:
            journal = self.leaves.journal_id()
            return record_lines(leaves, tenant=self.leaves.tenant, journal=journal, keys=keys, note=head.note)
        if form is Format.OCSF:
            ocsf = Ocsf(self._version)
            return (msgspec.json.encode(ocsf.event(leaf)) for leaf in leaves)
        return (event_line(leaf) for leaf in leaves)

    def runs(self, selection: Selection) -> list[str]:
        """The runs of a selection that have ended. Raises `RunError` (code `run_open`) for one that is named and has not."""
        runs = self.leaves.closed_runs(selection)
        if selection.run is not None and not runs:
            raise RunError(f"run `{selection.run}` goes on, or ended before that; a run is sent when it has ended", code="run_open")
        return runs

    async def send(self, runs: list[str], selection: Selection, *, sender: Sender, by: str | None) -> int:
        """Send runs as traces; how many spans that were. Raises `ExportError` where one did not arrive, `ConfigError`."""
        encoder = self.encoder()
        await self._note(Format.OTLP, selection, to=sender.url, by=by, said={"runs": len(runs)})
        sent = 0
        register = self.leaves.register_by_run()
        try:
            for run in runs:
                leaves = self.leaves.run(run)
                spans = trace_of(leaves, register=register.get(run, ()), undone=first_of_undone(self.leaves, leaves))
                for request in encoder.requests(spans):
                    await sender.send(request)
                sent += len(spans)
        finally:
            await sender.close()
        return sent

    def encoder(self) -> Encoder:
        """Encodes traces. Raises `ConfigError` where the extra is not installed."""
        return Encoder(tenant=self.leaves.tenant, version=self._version)

    async def announce(self, url: str) -> None:
        """Put on record that from now on runs are sent to a receiver as they end: once for each receiver."""
        if url in self._announced:
            return
        shown = self._redactor.pseudonym("receiver", url)
        known = self.leaves.registered(EventType.RECORD_EXPORTED)
        if not any(header.refs.get("receiver") == shown for header in known):
            await self._note(Format.OTLP, Selection(), to=url, by=None, said={"live": True}, refs={"receiver": shown})
        self._announced.add(url)

    async def _note(
        self, form: Format, selection: Selection, *, to: str, by: str | None, said: dict[str, Json], refs: dict[str, str] | None = None
    ) -> None:
        body: dict[str, Any] = {"format": str(form), "selection": msgspec.to_builtins(selection), "to": to, "by": by or SYSTEM, **said}
        await self._register.append(
            Draft(
                type=EventType.RECORD_EXPORTED,
                # A header holds nothing personal.
                actor=SYSTEM if by is None else self._redactor.pseudonym("person", by),
                body=self._redactor.redact(body).value,
                refs=refs or {},
            ),
            by=by,
        )
