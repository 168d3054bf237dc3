"""The demo's tickets: filed in the tracker as customers would, and what is known to be right for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remit.connectors.roundup.client import RoundupClient


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A ticket as it is filed. `truth` is never shown to what triages it."""

    key: str
    tenant: str
    region: str
    requester: str
    vip: bool
    language: str
    title: str
    body: str
    tags: tuple[str, ...]
    truth: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Filed:
    """A ticket with the number of its issue."""

    issue: int
    ticket: Ticket


def read_tickets(folder: Path) -> list[Ticket]:
    """The bundled tickets, in the order in which they are filed."""
    accounts = json.loads((folder / "data" / "directory.json").read_text(encoding="utf-8"))["accounts"]
    vips = {account["email"] for account in accounts if account["vip"]}
    lines = (folder / "data" / "tickets.jsonl").read_text(encoding="utf-8").splitlines()
    rows = sorted((json.loads(line) for line in lines if line), key=lambda row: row["created_order"])
    return [
        Ticket(
            key=row["key"],
            tenant=row["tenant"],
            region=row["region"],
            requester=row["requester"],
            vip=row["requester"] in vips,
            language=row["language"],
            title=row["title"],
            body=row["body"],
            tags=tuple(row["tags"]),
            truth=row["truth"],
        )
        for row in rows
    ]


async def file_tickets(client: RoundupClient, tickets: Sequence[Ticket], filed: Callable[[], None]) -> list[Filed]:
    """File the tickets one after the other, so that earlier ones have lower numbers. `filed` is called after each."""
    done: list[Filed] = []
    for ticket in tickets:
        created = await client.create(_fields(ticket), ticket.key)
        done.append(Filed(issue=created.issue, ticket=ticket))
        filed()
    return done


def _fields(ticket: Ticket) -> dict[str, Any]:
    return {
        "title": ticket.title,
        "body": ticket.body,
        "status": "open",
        "requester": ticket.requester,
        "requester_vip": ticket.vip,
        "tenant": ticket.tenant,
        "region": ticket.region,
        "language": ticket.language,
    }
