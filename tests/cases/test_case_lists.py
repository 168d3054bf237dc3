"""Cases are found by what they are about, counted, decided many at a time, and only by their own tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from project import REFUND, Shop, make_shop
from remit import Remit
from remit.cases.cases import Decision
from remit.errors import CaseError, RunError
from remit.journal.journal import system_clock

pytestmark = pytest.mark.anyio

WORKFLOW = """
async def {name}(run, request):
    return {{"paid": await run.call("payments.refund", order=4, amount=AMOUNT, account="DE1")}}

AMOUNT = {{"amount": "60.00", "currency": "EUR"}}
"""
HOUR_US = 3_600_000_000
RULE = "autonomy:payments.refund"


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    for name in ("refunds", "returns"):
        made.contract(name, [REFUND], workflow=WORKFLOW.format(name=name))
    made.contract("away", [REFUND])
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


async def ask(remit: Remit, contract: str = "refunds", times: int = 1) -> list[str]:
    return [(await remit.run(contract, {})).case or "" for _ in range(times)]


async def test_cases_are_found_by_what_they_are_about(remit: Remit) -> None:
    (first,), (second,) = await ask(remit), await ask(remit, "returns")
    async with remit.gate("away").run({}) as run:
        await run.escalate("a person must look at this")

    def found(**asked: str) -> set[str]:
        return {case.case for case in remit.cases.list("shop", **asked)}  # type: ignore[arg-type]

    (escalated,) = found(kind="escalation")
    assert found(contract="returns") == {second}
    assert found(run=remit.cases.get(first).run) == {first}
    assert found(rule=RULE) == found(kind="approval") == {first, second}
    assert found(rule="autonomy") == set()
    assert found(queue="care") == found(queue="queue:care") == {first, second, escalated}
    assert found(queue="other") == set()


async def test_a_list_comes_in_pages_and_says_how_long_it_is(remit: Remit) -> None:
    cases = await ask(remit, times=5)
    pages = [remit.cases.list("shop", limit=2, offset=offset) for offset in (0, 2, 4)]
    assert sorted(case.case for page in pages for case in page) == sorted(cases)
    assert [len(page) for page in pages] == [2, 2, 1]
    assert (remit.cases.count("shop"), remit.cases.count("shop", contract="returns")) == (5, 0)


async def test_many_cases_are_decided_alike_and_one_that_can_not_be_stops_no_other(remit: Remit) -> None:
    cases = await ask(remit, times=3)
    token = remit.person_token("lee")
    await remit.cases.decide(cases[1], Decision.APPROVED, token=token)
    decided = await remit.cases.decide_all([*cases, "case-none"], Decision.DENIED, token=token, reason="a bad batch")
    assert [item.case for item in decided] == [*cases, "case-none"]
    assert [item.error.code if item.error else "" for item in decided] == ["", "case_closed", "", "case_not_found"]
    assert remit.cases.count("shop", status="denied") == 2


async def test_an_answer_that_comes_too_late_is_told_what_happens(remit: Remit, shop: Shop) -> None:
    (case,) = await ask(remit)
    async with Remit(shop.folder, clock=lambda: system_clock() + 5 * HOUR_US) as later:
        with pytest.raises(CaseError, match="nothing is carried out"):
            await later.cases.decide(case, Decision.APPROVED, token=later.person_token("lee"))


async def test_another_tenant_on_the_same_database_sees_none_of_it(remit: Remit, shop: Shop) -> None:
    (case,) = await ask(remit)
    run = remit.cases.get(case).run
    await remit.cases.decide(case, Decision.APPROVED, token=remit.person_token("lee"))
    await ask(remit)
    file = shop.folder / "remit.toml"
    file.write_text(file.read_text().replace('tenant = "shop"', 'tenant = "other"'))
    async with Remit(shop.folder) as other:
        assert other.engine.waiting() == []
        assert (other.cases.list("other"), other.cases.list("shop"), other.cases.count("shop")) == ([], [], 0)
        with pytest.raises(CaseError) as unseen:
            other.cases.get(case)
        assert unseen.value.code == "case_not_found"
        with pytest.raises(RunError) as unknown:
            await other.engine.drive(run)
        assert unknown.value.code == "run_not_found"
        assert not other.principals.person("lee", "Lee", ()).enabled
