"""The register: one chain for a tenant, whoever writes to it, and nothing done beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from project import Shop, make_shop
from remit import Remit
from remit.errors import IdentityError, StorageError
from remit.journal.events import Draft, Event, EventType
from remit.journal.journal import Recording
from remit.journal.register import Register
from remit.storage import schema
from remit.storage.writer import Statement

pytestmark = pytest.mark.anyio


@pytest.fixture
def shop(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Shop:
    return make_shop(tmp_path_factory.mktemp("register") / "shop", database_url)


def draft(number: int) -> Draft:
    return Draft(type=EventType.RECORD_EXPORTED, actor="system", body={"number": number})


async def test_what_is_decided_from_the_register_is_decided_anew_when_somebody_was_faster(shop: Shop) -> None:
    async def elsewhere() -> None:
        async with Remit(shop.folder) as other:
            await other.register.append(draft(100))

    async with Remit(shop.folder) as remit:
        for begun in (0, 2):
            asked: list[int] = []

            def count(known: Sequence[Event], asked: list[int] = asked) -> Recording[int]:
                if not asked:
                    # Between what is seen here and what is written comes somebody else's work.
                    with ThreadPoolExecutor() as threads:
                        threads.submit(asyncio.run, elsewhere()).result()
                asked.append(len(known))
                return Recording(value=len(known), drafts=[draft(len(known))])

            assert await remit.register.change(count) == begun + 1
            assert asked == [begun, begun + 1]
        assert [event.body["number"] for event in remit.register.events()] == [100, 1, 100, 3]


async def test_many_who_write_at_once_each_have_their_turn(shop: Shop) -> None:
    async with Remit(shop.folder) as remit, Remit(shop.folder) as other:
        values = await asyncio.gather(
            *(
                register.change(lambda known: Recording(value=len(known), drafts=[draft(len(known))]))
                for _ in range(5)
                for register in (remit.register, other.register)
            )
        )
        assert sorted(values) == list(range(10))
        assert [event.body["number"] for event in remit.register.events()] == list(range(10))


async def test_what_is_appended_stands_behind_the_last_event_and_those_before_it_are_not_read(shop: Shop) -> None:
    async with Remit(shop.folder) as remit:
        await remit.register.append(draft(1))
        await remit.register.append(draft(2))
        with remit.database.engine.begin() as connection:
            connection.execute(update(schema.events).where(schema.events.c.n == 1).values(body=b"damaged"))
    async with Remit(shop.folder) as remit:
        await remit.register.append(draft(3))
        assert remit.journal.go_on(remit.register.name).end.n == 4
        # Whoever reads the register sees it.
        with pytest.raises(StorageError) as found:
            remit.register.events()
        assert found.value.code == "record_corrupt"


async def test_nothing_is_appended_behind_a_last_event_that_is_damaged(shop: Shop) -> None:
    async with Remit(shop.folder) as remit:
        await remit.register.append(draft(1))
        await remit.register.append(draft(2))
        with remit.database.engine.begin() as connection:
            connection.execute(update(schema.events).where(schema.events.c.n == 2).values(header=b"{}"))
    async with Remit(shop.folder) as remit:
        with pytest.raises(StorageError) as found:
            await remit.register.append(draft(3))
        assert found.value.code == "record_corrupt"


async def test_where_nothing_is_to_be_recorded_nothing_is(shop: Shop) -> None:
    async with Remit(shop.folder) as remit:
        assert await remit.register.change(lambda known: Recording(value=len(known))) == 0
        assert remit.register.events() == []


async def test_a_disabled_person_puts_nothing_on_the_register_and_changes_nothing(shop: Shop) -> None:
    async with Remit(shop.folder) as remit:
        await remit.administration.disable("person/lee")
        statement = Statement(sql="UPDATE principals SET enabled = :on", params={"on": True})
        with pytest.raises(IdentityError) as refused:
            await remit.register.append(draft(1), statements=[statement], by="person/lee")
        assert refused.value.code == "principal_disabled"
        with pytest.raises(IdentityError):
            await remit.register.change(lambda _: Recording(value=None, drafts=[draft(1)]), by="person/lee")
        assert [event.type for event in remit.register.events()] == [EventType.PRINCIPAL_CHANGED]
        assert not remit.principals.person("lee", "Lee", []).enabled


async def test_what_can_not_be_done_is_not_on_the_register(shop: Shop) -> None:
    async with Remit(shop.folder) as remit:
        statement = Statement(sql="UPDATE principals SET enabled = :on", params={"on": True}, changes=7)
        with pytest.raises(StorageError):
            await remit.register.append(draft(1), statements=[statement])
        assert Register(remit.journal, remit.tenant).events() == []
