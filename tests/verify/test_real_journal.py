"""What Remit writes verifies: at rest, in every corner, and while it is being written."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from journals import destroy, write_journal

from project import REFUND, make_shop, write_action
from remit import Held, Remit
from remit.cases.cases import Decision
from remit.journal.events import EventType
from remit_verify import Options, verify

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent.parent
LARGE = {"order": 4, "amount": {"amount": "60.00", "currency": "EUR"}, "account": "DE1"}


async def test_a_journal_with_closed_held_and_erased_runs_verifies(tmp_path: Path, database_url: str) -> None:
    shop = await write_journal(tmp_path / "shop", database_url, runs=12, calls=4)
    report = verify(shop.folder)
    assert report.findings == ()
    (tenant,) = report.tenants
    assert (tenant.tenant, tenant.runs, tenant.size, tenant.behind) == ("shop", 12, report.events, 0)
    assert report.erased > 0
    assert report.bodies + report.erased == report.events


async def test_a_run_that_people_decide_about_verifies_when_it_is_closed_and_when_its_case_is_closed_later(
    tmp_path: Path, database_url: str
) -> None:
    shop = make_shop(tmp_path / "shop", database_url)
    shop.contract("refunds", [{"tool": "orders.read"}, REFUND, write_action("put.none")])
    async with Remit(shop.folder) as remit:
        async with remit.gate("refunds").run({"mail": "ann@shop.example"}, request_key="one") as run:
            held = await run.propose("payments.refund", LARGE)
            assert isinstance(held, Held)
            assert verify(shop.folder).findings == ()
        await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("lee"))
        async with remit.gate("refunds").run({"mail": "ann@shop.example"}, request_key="one") as run:
            await run.propose("payments.refund", LARGE)
            await run.escalate("somebody should look")
        assert verify(shop.folder).findings == ()
    assert verify(shop.folder).findings == ()


async def test_it_verifies_at_every_moment_while_it_is_written_and_erased(tmp_path: Path, database_url: str) -> None:
    shop = await write_journal(tmp_path / "shop", database_url, runs=6, calls=4)
    done = asyncio.Event()

    async def write() -> None:
        async with Remit(shop.folder) as remit:
            runs: list[str] = []
            for index in range(40):
                runs.append((await remit.run("writing", {"order": 100 + index, "calls": 4})).run)
                if index % 4 == 3:
                    await destroy(remit, runs[index - 1], EventType.RUN_ERASED)
                    await remit.sequencer.integrate(publish=index % 8 == 3)
        done.set()

    writing = asyncio.create_task(write())
    sizes: list[int] = []
    while not done.is_set() and not writing.done():
        report = await asyncio.to_thread(verify, shop.folder, options=Options(processes=1 + len(sizes) % 4 // 3))
        assert report.findings == ()
        sizes.append(report.events)
    await writing
    assert verify(shop.folder).findings == ()
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 2


def test_every_code_of_a_finding_stands_in_the_specification() -> None:
    written = "\n".join(path.read_text() for path in (ROOT / "src" / "remit_verify").glob("*.py"))
    told = (ROOT / "docs" / "record.md").read_text().split("## Verifying")[1]
    listed = {code for line in told.splitlines() if line.startswith("| `") for code in re.findall(r"`([a-z_]+)`", line.split("|")[1])}
    assert [code for code in sorted(listed) if not re.search(rf'"{code}"', written) and not _made(code)] == []
    used = set(re.findall(r'(?:code=|_add\(|\badd\(|yield |return |wrong = |event_finding\()"([a-z]+_[a-z_]+|fork)"', written))
    assert used - listed == set()


def _made(code: str) -> bool:
    """Of an event's two ciphertexts, by their names."""
    return code in {"body_wrong", "sealed_wrong"}
