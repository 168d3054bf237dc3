"""The first and the last event of a run, redacted, with the originals beside them."""

from __future__ import annotations

from collections.abc import Mapping

from remit.gate.authority import Authority
from remit.journal.events import Draft, EventType
from remit.journal.redaction import Redactor
from remit.values import Json


def opening(
    redactor: Redactor,
    authority: Authority,
    body: dict[str, Json],
    more: Mapping[str, str],
    classes: Mapping[str, str] | None = None,
) -> Draft:
    """A run of `authority` begins, for the request in `body`; `more`: what its header refers to beside the release.

    `classes`: of fields of the body.
    """
    shown = redactor.redact(body, classes).value
    return Draft(
        type=EventType.RUN_OPENED,
        actor=authority.principal,
        refs={"release": authority.release, "policy": authority.policy.digest, **more},
        body=shown,
        sealed=redactor.sealed(shown, body),
    )


def closing(redactor: Redactor, actor: str, body: dict[str, Json], took_us: int) -> Draft:
    """A run ends, with the `outcome` in `body`; how many events it has is added where they are written."""
    shown = redactor.redact(body).value
    return Draft(
        type=EventType.RUN_CLOSED,
        actor=actor,
        verdict=str(body["outcome"]),
        body=shown,
        sealed=redactor.sealed(shown, body),
        latency_us=max(0, took_us),
    )
