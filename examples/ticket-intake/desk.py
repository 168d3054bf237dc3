"""Starts the example's tracker on this machine and serves it until interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from remit.connectors.roundup.server import RoundupServer
from remit.identity.files import private_folder, write_private

HOME = Path(__file__).parent
PORT = 8091


def connect(folder: Path, server: RoundupServer) -> None:
    """Put the tracker's password where `remit.toml` looks for it."""
    private_folder(folder / ".remit")
    private_folder(folder / ".remit" / "secrets")
    write_private(folder / ".remit" / "secrets" / "tracker", server.accounts.intake.password.encode())


async def main() -> None:
    async with await RoundupServer.start(HOME / "tracker", port=PORT) as server:
        connect(HOME, server)
        sys.stdout.write(f"the tracker is at {server.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
