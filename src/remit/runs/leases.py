"""Holding a lease while a run is driven."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from remit.errors import StorageError
from remit.runs.table import LEASE_US, Lease, RunTable


@asynccontextmanager
async def held(table: RunTable, lease: Lease) -> AsyncGenerator[None, None]:
    """Renew a lease for as long as the block lasts, then give it back."""
    beating = asyncio.ensure_future(_beat(table, lease))
    try:
        yield
    finally:
        beating.cancel()
        # What has become of the run is known by now, and no error here may hide it; the lease ends by itself.
        with suppress(StorageError):
            table.release(lease)


async def _beat(table: RunTable, lease: Lease) -> None:
    while True:
        await asyncio.sleep(LEASE_US / 3_000_000)
        # A beat that is missed is made up for by the next; the fence holds whatever the lease says.
        with suppress(StorageError):
            if not table.renew(lease):
                return
