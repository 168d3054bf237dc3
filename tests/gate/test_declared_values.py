"""What a declared field holds is concealed wherever it stands: beside it, as a key, in the object, in what people say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from project import RECORD_RULES, SECRET, Shop, make_shop, write_action
from remit import Completed, Failed, Remit
from remit.cases.cases import Decision
from remit.errors import RecordError
from remit.journal.events import Event, EventType

pytestmark = pytest.mark.anyio

MORE_TOOLS = '''

class Account(Struct, frozen=True):
    number: str
    holder: str


class Changes(Struct, frozen=True):
    holder: str


class Known(Struct, frozen=True):
    first: str
    holder: str
    note: str
    people: dict[str, str]


@tool(
    "people.known",
    effects={Effect.READ},
    field_classes={"result.holder": FieldClass.PERSONAL, "result.people": FieldClass.PERSONAL},
)
async def known() -> Known:
    """Read who is known."""
    people = {"Ann Quillfeather": "CEO"}
    return Known(first="To Zora Quince", holder="Zora Quince", note="Dear Zora Quince, greet Ann Quillfeather", people=people)


@tool(
    "vault.open",
    effects={Effect.READ},
    field_classes={"result.number": FieldClass.SECRET, "result.holder": FieldClass.PERSONAL},
)
async def open_vault() -> Account:
    """Open a vault."""
    return Account(number="tango-9931", holder="Bertil Ohm")


async def account(ctx, args):
    attributes = {"holder": "Old Holder", "keeper": "Kay Keeper", "note": "for Old Holder"}
    return Resource(kind="Account", id="1", tenant=ctx.tenant, region="eu", attributes=attributes)


@tool(
    "accounts.hand_over",
    effects={Effect.WRITE},
    resource_kind="Account",
    resource_attributes={"holder": "String", "keeper": "String", "note": "String"},
    locate=account,
    field_classes={"changes.holder": FieldClass.PERSONAL, "resource.keeper": FieldClass.PERSONAL},
)
async def hand_over(changes: Changes) -> bool:
    """Hand an account over."""
    return True


@tool("codes.fail", effects={Effect.READ})
async def fail(code: int) -> bool:
    """Fail with a code that is none."""
    secret = (HOME / "bank.secret").read_text()
    given = [secret, "ann@shop.example", "4111 1111 1111 1111", "x" * 65, "Not Found", "", "account_closed", "hunter2\\n"]
    raise ToolFailed("no", code=given[code])
'''
ASK = {"autonomy": "approve", "approval": {"by": "role:care-lead", "within": "4h"}}
OPENING = """
async def opening(run, request):
    await run.call("vault.open")
    await run.call("put.none", value=1)
    return {}
"""
NO_SECRETS = """
@id("no-secrets") @reason("a secret is replaced, not read again")
forbid (principal, action == Action::"reveal", resource) when { context.classes.contains("secret") };
"""


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    tools = made.folder / "tools" / "shop.py"
    tools.write_text(tools.read_text().replace("import Connection,", "import Connection, FieldClass,") + MORE_TOOLS)
    made.contract("desk", [{"tool": "people.known"}, {"tool": "codes.fail"}, write_action("accounts.hand_over")])
    made.contract("asked", [write_action("accounts.hand_over", **ASK)])
    made.contract("opening", [{"tool": "vault.open"}, write_action("put.none", **ASK)], workflow=OPENING)
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


def bodies(remit: Remit, run: str) -> str:
    return repr([event.body for event in remit.journal.reader.events(run)])


def of_type(remit: Remit, run: str, kind: EventType) -> Event:
    return next(event for event in remit.journal.reader.events(run) if event.type is kind)


async def test_a_declared_value_is_concealed_wherever_it_stands_in_the_same_result(remit: Remit) -> None:
    async with remit.gate("desk").run({}) as run:
        read = await run.propose("people.known", {})
    assert isinstance(read, Completed)
    shown: Any = of_type(remit, run.id, EventType.CALL_COMPLETED).body["result"]
    assert "Zora" not in repr(shown)
    assert shown["note"].startswith("Dear <personal:")
    assert shown["first"] == f"To {shown['holder']}"


async def test_the_keys_of_a_declared_map_are_concealed_and_known_from_then_on(remit: Remit) -> None:
    async with remit.gate("desk").run({}) as run:
        await run.propose("people.known", {})
    shown: Any = of_type(remit, run.id, EventType.CALL_COMPLETED).body["result"]
    assert "Quillfeather" not in repr(shown)
    [(name, role)] = shown["people"].items()
    assert name.startswith("<personal:")
    assert role.startswith("<personal:")


async def test_the_object_is_concealed_where_an_attribute_is_that_of_a_declared_field(remit: Remit) -> None:
    async with remit.gate("desk").run({}) as run:
        await run.propose("accounts.hand_over", {"changes": {"holder": "New Holder"}})
    decided = of_type(remit, run.id, EventType.CALL_DECIDED)
    attributes: Any = decided.body["resource"]["attributes"]
    assert not [name for name in ("Old Holder", "New Holder", "Kay Keeper") if name in bodies(remit, run.id)]
    assert attributes["note"].startswith("for <personal:")
    original: Any = decided.sealed
    assert original["resource"]["attributes"] == {"holder": "Old Holder", "keeper": "Kay Keeper", "note": "for Old Holder"}


async def test_a_person_is_asked_about_an_object_without_what_is_declared_of_it(remit: Remit) -> None:
    async with remit.gate("asked").run({}) as run:
        held = await run.propose("accounts.hand_over", {"changes": {"holder": "New Holder"}})
        await remit.cases.decide(getattr(held, "case", ""), Decision.APPROVED, token=remit.person_token("lee"))
        # The same is asked once more, and answered by the same answer.
        assert (await run.propose("accounts.hand_over", {"changes": {"holder": "New Holder"}})).completed is False
    assert "Holder" not in bodies(remit, run.id)


async def test_an_approver_who_quotes_a_secret_and_a_name_is_recorded_without_either(remit: Remit) -> None:
    held = await remit.run("opening", {})
    assert held.case is not None
    said = "tango-9931 and Bertil Ohm are fine"
    await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("lee"), reason=said)
    reason = of_type(remit, held.run, EventType.APPROVAL_DECIDED).body["reason"]
    assert reason.startswith("<concealed:")
    assert "Ohm" not in reason


async def test_a_rule_about_secrets_keeps_them_from_being_revealed(remit: Remit, shop: Shop) -> None:
    held = await remit.run("opening", {})
    (shop.folder / "record.cedar").write_text(RECORD_RULES + NO_SECRETS)
    async with Remit(shop.folder) as strict:
        with pytest.raises(RecordError, match="a secret is replaced"):
            await strict.reveals.reveal(held.run, token=strict.person_token("lee"), reason="curious")
        # Of what holds none, it says nothing.
        shown = await strict.reveals.reveal(held.run, step="0", token=strict.person_token("lee"), reason="curious")
        assert shown.classes == []


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 7])
async def test_a_code_that_is_none_is_recorded_and_told_as_a_fixed_one(remit: Remit, code: int) -> None:
    async with remit.gate("desk").run({}) as run:
        failed = await run.propose("codes.fail", {"code": code})
    assert isinstance(failed, Failed)
    assert failed.code == "tool_failed"
    assert of_type(remit, run.id, EventType.CALL_FAILED).body["code"] == "tool_failed"
    assert SECRET not in bodies(remit, run.id)


async def test_a_code_that_is_one_is_kept(remit: Remit) -> None:
    async with remit.gate("desk").run({}) as run:
        failed = await run.propose("codes.fail", {"code": 6})
    assert isinstance(failed, Failed)
    assert failed.code == "account_closed"
