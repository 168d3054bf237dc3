"""Bringing foreign recordings in, many at once, so that the record takes many in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit.backtest.agentdojo import contract_of, read_lines, recording_of
from remit.runs.importing import ForeignRecording, Unguarded, unguarded

if TYPE_CHECKING:
    from remit.app import Remit

_AT_ONCE = 32


async def bring_in(remit: Remit, files: Sequence[Path], on_run: Callable[[], None]) -> dict[str, int]:
    """Bring in every run of the files. `imported` and `known` runs, and the `calls` of those imported.

    Raises `ConfigError` for a file that is none, or a suite for which the project has no contract.
    """
    contracts: dict[str, Unguarded] = {}
    runs = (run for file in files for run in read_lines(file))
    counts = {"imported": 0, "known": 0, "calls": 0}
    while batch := list(islice(runs, _AT_ONCE)):
        recordings = list(_recordings(remit, batch, contracts))
        found = await asyncio.gather(*(remit.imports.bring_in(under, each) for under, each in recordings))
        for run, (_, recording) in zip(found, recordings, strict=True):
            counts["known" if run is None else "imported"] += 1
            counts["calls"] += 0 if run is None else len(recording.steps)
            on_run()
    return counts


def _recordings(
    remit: Remit, batch: Sequence[dict[str, Any]], contracts: dict[str, Unguarded]
) -> Iterator[tuple[Unguarded, ForeignRecording]]:
    for run in batch:
        name = contract_of(run)
        under = contracts.get(name)
        if under is None:
            under = contracts[name] = unguarded(remit.program(name))
            remit.release_archive.keep(under.authority, under.bundle, {}, remit.clock())
        specs = {tool: each.spec for tool, each in under.authority.tools.items()}
        yield under, recording_of(run, specs)
