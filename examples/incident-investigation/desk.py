"""Starts the example's tracker on this machine, files the history of `data/` in it, and serves it until interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from remit.connectors.roundup.client import RoundupClient
from remit.connectors.roundup.installation import Account
from remit.connectors.roundup.server import RoundupServer
from remit.connectors.roundup.transport import Credentials
from remit.identity.files import private_folder, write_private

HOME = Path(__file__).parent
PORT = 8090
SAME = {"tenant": "northwind", "region": "eu", "requester": "s.andersen@northwind-mills.example", "requester_vip": False}


def client_of(server: RoundupServer, account: Account) -> RoundupClient:
    return RoundupClient(server.url, Credentials(username=account.username, password=account.password))


async def file_history(server: RoundupServer) -> dict[str, int]:
    """File each ticket once, however often this is called; the number of each by its key."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in (HOME / "data" / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    numbers: dict[str, int] = {}
    async with client_of(server, server.accounts.intake) as intake, client_of(server, server.accounts.agent) as agent:
        for row in rows:
            fields = {name: row[name] for name in ("title", "body", "status", "category")}
            numbers[row["key"]] = (await intake.create({**SAME, **fields}, row["key"])).issue
        for row in rows:
            for place, note in enumerate(row.get("notes", ())):
                await agent.note(numbers[row["key"]], note.format_map(numbers), f"{row['key']}-{place}")
    return numbers


def connect(folder: Path, server: RoundupServer) -> None:
    """Put the tracker's password where `remit.toml` looks for it."""
    private_folder(folder / ".remit")
    private_folder(folder / ".remit" / "secrets")
    write_private(folder / ".remit" / "secrets" / "tracker", server.accounts.agent.password.encode())


async def main() -> None:
    async with await RoundupServer.start(HOME / "tracker", port=PORT) as server:
        numbers = await file_history(server)
        connect(HOME, server)
        said = ", ".join(f"{number} {key}" for key, number in numbers.items() if key.endswith("incident"))
        sys.stdout.write(f"the tracker is at {server.url}; incidents: {said}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
