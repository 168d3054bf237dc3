"""Legal holds: what keeps runs from being erased, or losing their originals, until somebody lifts it.

A hold is an event of the register, and so is its end; which holds there are is a fold over the register. One by contract
or by subject also holds the runs that come later.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from remit.contracts.problems import did_you_mean, quoted
from remit.errors import RecordError
from remit.journal.events import Event, EventType
from remit.journal.journal import Recording
from remit.records.archive import Archive, StoredRun
from remit.records.policy import RunFacts
from remit.records.record_cedar import Deed
from remit.records.subjects import DataSubject, data_subject


class HoldScope(StrEnum):
    """What a hold is about."""

    RUN = "run"
    CONTRACT = "contract"
    SUBJECT = "subject"


class LegalHold(msgspec.Struct, frozen=True, kw_only=True):
    """A hold that stands. `what`: the run, the contract, or whose data; `shown`: the same as anybody may read it."""

    hold: str
    scope: HoldScope
    what: str
    shown: str
    by: str
    reason: str
    placed_at: int


class Holds:
    """The holds of one tenant."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def list(self) -> list[LegalHold]:
        """The holds that stand, the oldest first."""
        return standing(self._archive.register.events())

    async def place(self, scope: HoldScope, what: str, *, token: str, reason: str) -> LegalHold:
        """Hold a run, all runs of a contract, or all that are about somebody.

        Raises `RecordError` (`record_denied`, `subject_too_short`, `contract_unknown`), `RunError`, and what the token
        and `record.cedar` raise.
        """
        archive = self._archive
        purpose = archive.purpose(Deed.HOLD, token=token, reason=reason)
        subject = data_subject(what, archive.redactor, tuple(archive.people)) if scope is HoldScope.SUBJECT else None
        await archive.permit(purpose, self._affected(scope, what))
        hold = LegalHold(
            hold=f"hold-{uuid.uuid4().hex[:8]}",
            scope=scope,
            what=what if subject is None else subject.name,
            shown=what if subject is None else subject.shown,
            by=purpose.person.principal,
            reason=archive.redactor.text(reason),
            placed_at=archive.journal.clock(),
        )
        body = {"hold": hold.hold, "scope": hold.scope, "what": hold.shown}
        refs = {"hold": hold.hold, **({"run": what} if scope is HoldScope.RUN else {})}
        draft = archive.draft(EventType.HOLD_PLACED, purpose, body, **refs)
        # Whose data is meant must be known for as long as the hold stands, and is for nobody else to read.
        sealed = None if hold.what == hold.shown else {"what": hold.what}
        await archive.register.append(
            msgspec.structs.replace(draft, sealed=sealed), by=purpose.person.principal
        )
        return hold

    async def lift(self, start: str, *, token: str, reason: str) -> LegalHold:
        """End a hold, which is named by its id or the start of it.

        Raises `RecordError` (`hold_not_found`, `hold_ambiguous`, `record_denied`), and as `place` does.
        """
        archive = self._archive
        purpose = archive.purpose(Deed.HOLD, token=token, reason=reason)
        meant = _found(self.list(), start)
        await archive.permit(purpose, self._affected(meant.scope, meant.what))

        def decide(known: Sequence[Event]) -> Recording[LegalHold]:
            hold = _found(standing(known), meant.hold)
            refs = {"hold": hold.hold, **({"run": hold.what} if hold.scope is HoldScope.RUN else {})}
            draft = archive.draft(EventType.HOLD_LIFTED, purpose, {"hold": hold.hold}, **refs)
            return Recording(value=hold, drafts=[draft])

        return await archive.register.change(decide, by=purpose.person.principal)

    def _affected(self, scope: HoldScope, what: str) -> Sequence[RunFacts]:
        """The runs that policy is asked about: where there are more to come, what all of them have in common."""
        archive = self._archive
        match scope:
            case HoldScope.RUN:
                run = archive.run(what)
                return [archive.facts(run, archive.events(run.run))]
            case HoldScope.CONTRACT:
                if what not in archive.contracts:
                    hint = did_you_mean(what, archive.contracts, "contracts here")
                    raise RecordError(f"there is no contract {quoted(what)}; {hint}", code="contract_unknown")
                return [archive.every_run_of(what)]
            case HoldScope.SUBJECT:
                return [archive.every_run_of(contract) for contract in archive.contracts]


class Holding:
    """The holds that stood when the register was read, and which of them keeps a run."""

    def __init__(self, archive: Archive, known: Sequence[Event]) -> None:
        self._archive = archive
        self._holds = standing(known)
        self._subjects: dict[str, DataSubject] = {
            hold.hold: data_subject(hold.what, archive.redactor, tuple(archive.people))
            for hold in self._holds
            if hold.scope is HoldScope.SUBJECT
        }

    def keeps(self, run: StoredRun, events: Callable[[], Sequence[Event]] | None = None) -> LegalHold | None:
        """A hold that keeps this run, if there is one. `events` reads the run, where that is needed."""
        read: Sequence[Event] | None = None
        for hold in self._holds:
            if hold.scope is not HoldScope.SUBJECT:
                if hold.what == (run.run if hold.scope is HoldScope.RUN else run.contract):
                    return hold
                continue
            if read is None:
                read = self._archive.events(run.run) if events is None else events()
            if self._subjects[hold.hold].is_meant_by(self._archive.facts(run, read), read):
                return hold
        return None


def standing(known: Sequence[Event]) -> list[LegalHold]:
    """The holds that events of the register have placed and not lifted."""
    found: dict[str, LegalHold] = {}
    for event in known:
        body: dict[str, Any] = event.body or {}
        if event.type is EventType.HOLD_LIFTED:
            found.pop(str(body.get("hold")), None)
        elif event.type is EventType.HOLD_PLACED:
            original: dict[str, Any] = event.sealed or body
            found[str(body["hold"])] = LegalHold(
                hold=str(body["hold"]),
                scope=HoldScope(body["scope"]),
                what=str(original["what"]),
                shown=str(body["what"]),
                by=str(body["by"]),
                reason=str(body.get("reason", "")),
                placed_at=event.header.at,
            )
    return list(found.values())


def _found(holds: Sequence[LegalHold], start: str) -> LegalHold:
    wanted = start if start.startswith("hold-") else f"hold-{start}"
    found = [hold for hold in holds if hold.hold.startswith(wanted)]
    if not found:
        raise RecordError(f"no hold {quoted(start)} stands; `remit hold list` lists them", code="hold_not_found")
    if len(found) > 1:
        named = ", ".join(hold.hold for hold in found)
        raise RecordError(f"several holds begin with {quoted(start)}: {named}; give more of the id", code="hold_ambiguous")
    return found[0]
