"""A live Roundup tracker for the session, and clients of its accounts."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from faulty_http import client_of

from remit.connectors.roundup.client import RoundupClient
from remit.connectors.roundup.installation import remove
from remit.connectors.roundup.server import RoundupServer

CI = os.environ.get("CI") == "true"


def require_roundup() -> None:
    if importlib.util.find_spec("roundup") is None:
        reason = "Roundup is not installed; install Remit with the extra `demo`"
        if CI:
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder for a tracker of the test's own, whose data is gone afterwards wherever it was linked to."""
    require_roundup()
    yield tmp_path / "desk"
    remove(tmp_path / "desk")


@pytest.fixture(scope="session")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoundupServer]:
    """One tracker for all tests of the session; each test makes the issues that it needs."""
    require_roundup()
    folder = tmp_path_factory.mktemp("roundup") / "desk"
    server = asyncio.run(RoundupServer.start(folder))
    yield server
    asyncio.run(server.stop())
    remove(folder)


@pytest.fixture
async def agent(tracker: RoundupServer) -> AsyncIterator[RoundupClient]:
    async with client_of(tracker.url, tracker.accounts.agent) as client:
        yield client


@pytest.fixture
async def intake(tracker: RoundupServer) -> AsyncIterator[RoundupClient]:
    async with client_of(tracker.url, tracker.accounts.intake) as client:
        yield client


@pytest.fixture
async def admin(tracker: RoundupServer) -> AsyncIterator[RoundupClient]:
    async with client_of(tracker.url, tracker.accounts.admin) as client:
        yield client
