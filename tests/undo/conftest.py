"""The shelf, and the project around it opened, for all tests of undo."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from shelf import Shelf, make_shelf

from remit import Remit


@pytest.fixture
def shelf(tmp_path: Path, database_url: str) -> Shelf:
    return make_shelf(tmp_path, database_url)


@pytest.fixture
async def remit(shelf: Shelf) -> AsyncIterator[Remit]:
    async with Remit(shelf.shop.folder) as opened:
        yield opened
