"""What is recorded where the record itself is measured: runs of twenty calls, without the gate that decides them.

Each call has two events of the form and size that the gate gives them, the decision and the outcome, each in a
transaction of its own. The parts are the product's. A variant leaves one out by putting another part in its place: a
redactor that finds nothing, run keys that don't encrypt, a sequencer that nobody tells of anything.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.workload import CALLS_PER_RUN, TOOL, Arguments
from remit.belonging import KeyedDatabase, last_published, open_record
from remit.journal.events import Draft, EventType
from remit.journal.journal import Journal, RunLog
from remit.journal.notes import CheckpointKey, origin
from remit.journal.publishing import file_target, publisher
from remit.journal.redaction import Redacted, Redactor
from remit.journal.sequencer import Sequencer
from remit.journal.vault import RunKeys, Vault
from remit.storage.rows import RunRow, close_run, open_run
from remit.values import Json

TENANT = "bench"
EVENTS_PER_RUN = 2 * CALLS_PER_RUN + 2
_CONTRACT = "desk"
_ACTOR = f"agent/{TENANT}/{_CONTRACT}"
_REFS = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("release", "policy", "tool")}
_DAY_US = 86_400_000_000


class FindsNothing(Redactor):
    """Takes every value as it is."""

    def redact(self, value: Json, classes: Any = None, prefix: str = "") -> Redacted:
        del classes, prefix
        return Redacted(value=value, kinds=frozenset())


class PlainKeys(RunKeys):
    """Keys of a run that leave its bodies as they are."""

    __slots__ = ()

    def encrypt_body(self, plain: bytes, run: str, n: int) -> bytes:
        del run, n
        return plain

    def encrypt_sealed(self, plain: bytes, run: str, n: int) -> bytes:
        del run, n
        return plain


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which of the parts are at work."""

    redacts: bool = False
    encrypts: bool = False
    sequences: bool = False


BARE = Parts()
VARIANTS = {
    "bare: encode, hash, chain, commit": BARE,
    "with redaction": Parts(redacts=True),
    "with encryption": Parts(encrypts=True),
    "with the Merkle tree": Parts(sequences=True),
    "whole": Parts(redacts=True, encrypts=True, sequences=True),
}
WHOLE = VARIANTS["whole"]


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The journal of a database of its own, and what stands around it. `keys`: the folder that a verifier needs."""

    record: KeyedDatabase
    journal: Journal
    sequencer: Sequencer
    redactor: Redactor
    keys: Path
    new_keys: Callable[[RunKeys], RunKeys]


@asynccontextmanager
async def pipeline(folder: Path, url: str, parts: Parts) -> AsyncGenerator[Pipeline]:
    """Open everything as a project does, in an empty `folder`; `url` as in remit.toml."""
    keys = folder / "keys"
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    record = open_record(url, folder, keys, TENANT)
    key = CheckpointKey(record.record.reveal(), origin(record.id, TENANT))
    last = last_published(folder, key)
    journal = Journal(record.database, vault=Vault(record.master.reveal()))
    publish = publisher([file_target(last.published), last.keep])
    sequencer = Sequencer(record.database, journal, key, tenant=TENANT, publish=publish, last=last)
    if parts.sequences:
        journal.on_written = sequencer.noted
    kind = Redactor if parts.redacts else FindsNothing
    try:
        yield Pipeline(
            record=record,
            journal=journal,
            sequencer=sequencer,
            redactor=kind(key=record.pseudonym.reveal()),
            keys=keys,
            new_keys=(lambda made: made) if parts.encrypts else lambda _: PlainKeys(None, None),
        )
    finally:
        await sequencer.close()
        await journal.close()
        record.database.close()


class RunWriter:
    """Writes whole runs, one after the other, an event and a commit at a time."""

    def __init__(self, into: Pipeline, seed: int) -> None:
        self._into = into
        self._arguments = Arguments(seed)
        self._log: RunLog | None = None
        self._redactor = into.redactor

    async def events(self, count: int) -> None:
        """Record so many events, each once the one before it is durable; the journal is told of it as the gate tells it."""
        journal = self._into.journal
        journal.under_way += 1
        try:
            for _ in range(count):
                await self._event()
        finally:
            journal.under_way -= 1

    async def _event(self) -> None:
        log = self._log
        if log is None:
            await self._open()
        elif log.end.n == EVENTS_PER_RUN:
            await self._close(log)
        elif log.end.n % 2 == 0:
            await self._into.journal.append(log, self._decided(log))
        else:
            await self._into.journal.append(log, self._completed(log))

    async def end(self) -> None:
        """Close the run that is open; nothing where none is."""
        if self._log is not None and self._log.end.n > 1:
            await self._close(self._log)

    async def _open(self) -> None:
        journal, run = self._into.journal, f"run-{uuid.uuid4().hex[:16]}"
        log, stored = journal.start(TENANT, run)
        log.keys = self._into.new_keys(log.keys)
        self._redactor = self._into.redactor.for_run()
        row = RunRow(
            run=run,
            tenant=TENANT,
            contract=_CONTRACT,
            release=_REFS["release"],
            principal=_ACTOR,
            request_key=uuid.uuid4().hex,
            request_digest=_REFS["policy"],
            elsewhere=False,
            opened_at=journal.clock(),
            worker=run,
            lease_us=_DAY_US,
            retention_us=_DAY_US,
            erase_after_us=None,
            priority=1,
        )
        request = self._redactor.redact({"contract": _CONTRACT, "request": self._arguments.next()}).value
        opened = Draft(type=EventType.RUN_OPENED, actor=_ACTOR, refs=_REFS, body=request)
        await journal.append(log, opened, statements=[stored, open_run(row, self._into.record.database.now_us)])
        self._log = log

    async def _close(self, log: RunLog) -> None:
        closed = Draft(type=EventType.RUN_CLOSED, actor=_ACTOR, verdict="completed", body={"reason": ""})
        at = self._into.journal.clock()
        await self._into.journal.append(log, closed, statements=[close_run(log.run, "completed", at)])
        self._log = None

    def _decided(self, log: RunLog) -> Draft:
        args = self._arguments.next()
        shown = self._redactor.redact(args).value
        original = {"facts": _facts(args), "resource": _resource(args), "labels": _LABELS, "fields": list(args)}
        beside = self._redactor.redact({**original, "verdict": {"kind": "allow", "rules": ["grant:desk.update"]}}).value
        body = {"tool": TOOL, "args": shown, **beside, "args_digest": _REFS["tool"], "classes": [], **_COUNTED}
        sealed = None if shown is args else self._redactor.sealed(shown, args)
        return Draft(
            type=EventType.CALL_DECIDED,
            actor=_ACTOR,
            span=str(log.end.n // 2),
            refs=_REFS,
            verdict="allow",
            body=body,
            sealed=sealed,
            latency_us=412,
        )

    def _completed(self, log: RunLog) -> Draft:
        result = {"ticket": "581923", "status": "open", "version": "v-581923"}
        body = {"result": self._redactor.redact(result).value, "rows": None}
        return Draft(
            type=EventType.CALL_COMPLETED, actor=_ACTOR, span=str(log.end.n // 2), refs=_REFS, body=body, latency_us=95
        )


_LABELS = {name: ["model"] for name in ("ticket", "category", "priority", "assignee", "note")}
_COUNTED = {
    "demand": [1, 1, 0, 0, "", 0],
    "reserved": [[f"desk.update/{window}", "calls", 29_400_000 + n, 1] for n, window in enumerate(("minute", "hour", "tenant"))],
    "key": "0123456789abcdef0123456789abcdef",
    "judged_at": 1_764_000_000_000_000,
    "proposed": 7,
}


def _facts(args: dict[str, Any]) -> dict[str, Any]:
    return {
        "args": {"category": args["category"], "priority": args["priority"]},
        "from": {"assignee": ["model"]},
        "facts": {"updates": 7},
        "classes": [],
        "attempt": 1,
    }


def _resource(args: dict[str, Any]) -> dict[str, Any]:
    attributes = {"vip": False, "status": "open"}
    return {"kind": "Ticket", "id": str(args["ticket"]), "tenant": TENANT, "region": "eu", "attributes": attributes, "version": "7"}
