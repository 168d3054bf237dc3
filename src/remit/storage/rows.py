"""The rows beside the journal that change in the same transaction as an event: runs and cases."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from remit.storage.writer import Statement


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseRow:
    """A case as it is opened. Times in microseconds since the epoch; `roles` separated by spaces."""

    case: str
    tenant: str
    run: str
    step: str
    kind: str
    queue: str
    roles: str
    reason: str
    opened_at: int
    due_at: int | None
    expires_at: int | None


def storable(text: str) -> str:
    """A text as every database takes it: Postgres has none with the character NUL. The events have it as it was."""
    return text.replace("\0", "\ufffd")


def open_case(row: CaseRow) -> Statement:
    return Statement(
        sql='INSERT INTO cases ("case", tenant, run, step, kind, queue, roles, status, reason, opened_at, due_at,'
        " expires_at) VALUES (:case, :tenant, :run, :step, :kind, :queue, :roles, 'open', :reason, :opened_at,"
        " :due_at, :expires_at)",
        params={**asdict(row), "reason": storable(row.reason)},
    )


def note_read(tenant: str, document: str, version: int, run: str, step: str) -> Statement:
    """A step of a run was given a version of a document."""
    return Statement(
        sql="INSERT INTO memory_reads (tenant, document, version, run, step) VALUES (:tenant, :document, :version, :run,"
        " :step) ON CONFLICT DO NOTHING",
        params={"tenant": tenant, "document": document, "version": version, "run": run, "step": step},
    )


def decide_case(case: str, status: str, by: str, at: int) -> Statement:
    """Decide a case that is still open; where it is not, the whole transaction fails."""
    return Statement(
        sql="UPDATE cases SET status = :status, decided_at = :at, decided_by = :by"
        ' WHERE "case" = :case AND status = \'open\'',
        params={"case": case, "status": status, "by": by, "at": at},
        changes=1,
    )


def make_ready(run: str, at: int) -> Statement:
    """A run may go on that waits for a person, or is about to; one that is driven may find the decision by itself."""
    return Statement(
        sql="UPDATE runs SET status = 'ready', wake_at = NULL, tries = 0, updated_at = :at"
        " WHERE run = :run AND status IN ('held', 'running')",
        params={"run": run, "at": at},
    )


def expire_approvals(run: str, at: int) -> Statement:
    """Questions of a run that nobody answered in time are off the table."""
    return Statement(
        sql="UPDATE cases SET status = 'expired', decided_at = :at"
        " WHERE run = :run AND kind IN ('approval', 'question') AND status = 'open' AND expires_at < :at",
        params={"run": run, "at": at},
    )


def withdraw_approvals(run: str, at: int) -> Statement:
    """A closed run asks nobody any more."""
    return Statement(
        sql="UPDATE cases SET status = 'withdrawn', decided_at = :at"
        " WHERE run = :run AND kind IN ('approval', 'question') AND status = 'open'",
        params={"run": run, "at": at},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """A run as it is opened. `worker` keeps it for `lease_us`, so that who has opened it drives it first; `None` leaves it
    to whoever takes it from the queue.

    `request_key`, `request_digest`: keyed hashes. `elsewhere`: its agent drives it, and no worker does. `retention_us`,
    `erase_after_us`: how long after closing its originals, and all of it, are kept.
    """

    run: str
    tenant: str
    contract: str
    release: str
    principal: str
    request_key: str
    request_digest: str
    elsewhere: bool
    opened_at: int
    worker: str | None
    lease_us: int
    retention_us: int
    erase_after_us: int | None
    priority: int


def open_run(row: RunRow, now_us: str) -> Statement:
    """`now_us`: the database's own time, as SQL (`Database.now_us`)."""
    return Statement(
        sql="INSERT INTO runs (run, tenant, contract, release, principal, status, request_key, request_digest,"  # noqa: S608 - our own text
        " elsewhere, opened_at, updated_at, held_at, worker, lease_until, retention_us, erase_after_us, priority)"
        " VALUES (:run, :tenant, :contract, :release, :principal, :status, :request_key, :request_digest, :elsewhere,"
        f" :opened_at, :opened_at, :opened_at, :worker, {now_us} + :lease_us, :retention_us, :erase_after_us, :priority)",
        params={**asdict(row), "status": "ready" if row.worker is None else "running"},
    )


def close_run(run: str, outcome: str, at: int) -> Statement:
    """The run is closed, and nobody's any more."""
    return Statement(
        sql="UPDATE runs SET status = 'closed', outcome = :outcome, updated_at = :at, worker = NULL,"
        " lease_until = NULL, trouble = NULL, wake_at = NULL WHERE run = :run",
        params={"run": run, "at": at, "outcome": outcome},
    )


_CLOSED = "EXISTS (SELECT 1 FROM runs WHERE runs.run = run_keys.run AND runs.status = 'closed')"
"""An open run needs its keys to go on, whatever anybody has decided meanwhile."""


def still_there(run: str) -> Statement:
    """Nothing is changed; the transaction fails where the run has been erased, and so gets no events any more."""
    return Statement(
        sql="UPDATE run_keys SET run = run WHERE run = :run AND body_key IS NOT NULL", params={"run": run}, changes=1
    )


def drop_originals(run: str) -> Statement:
    """Destroy the key of a closed run's originals; the transaction fails where it is open, or they are gone already."""
    return Statement(
        sql=f"UPDATE run_keys SET sealed_key = NULL WHERE run = :run AND sealed_key IS NOT NULL AND {_CLOSED}",  # noqa: S608 - our own text
        params={"run": run},
        changes=1,
    )


def erase_run(run: str, at: int) -> list[Statement]:
    """Destroy both keys of a closed run, and what its rows say; what it still asks of people is withdrawn."""
    keys = f"UPDATE run_keys SET body_key = NULL, sealed_key = NULL WHERE run = :run AND body_key IS NOT NULL AND {_CLOSED}"  # noqa: S608 - our own text
    return [
        Statement(sql=keys, params={"run": run}, changes=1),
        Statement(sql="UPDATE runs SET request_digest = '', trouble = NULL WHERE run = :run", params={"run": run}),
        Statement(
            sql="UPDATE cases SET status = 'withdrawn', decided_at = :at WHERE run = :run AND status = 'open'",
            params={"run": run, "at": at},
        ),
        Statement(sql="UPDATE cases SET reason = 'erased' WHERE run = :run", params={"run": run}),
    ]
