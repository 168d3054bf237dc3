"""What a tool says is recorded without personal data, and what the gate says quotes no credential."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from project import REFUND, SECRET, Shop, make_shop, write_action
from remit import Completed, Deferred, Denied, Remit
from remit.cases.cases import Decision
from remit.journal.events import Event, EventType

pytestmark = pytest.mark.anyio

MORE_TOOLS = '''

class Person(Struct, frozen=True):
    name: str
    text: str
    notes: list[str]


@tool(
    "people.read",
    effects={Effect.READ},
    field_classes={"result.name": FieldClass.PERSONAL, "result.notes.*": FieldClass.PERSONAL},
)
async def read_person(number: int) -> Person:
    """Read who somebody is."""
    return Person(name="Rosalind Franklin", text="write to rosalind@kings.example", notes=["photo 51"])


@tool("accounts.lock", effects={Effect.WRITE}, field_classes={"account": FieldClass.PERSONAL})
async def lock(account: str) -> bool:
    """Lock an account."""
    return True


@tool("notes.add", effects={Effect.READ})
async def add_note(text: str) -> str:
    """Say a text back."""
    return text


def secret(ctx):
    return ctx.client("bank", lambda connection: connection).secret.reveal()


async def telling(ctx, args):
    code = args["how"]
    raise ToolFailed("refused for shop:" + secret(ctx), code=code, retryable=code == "busy")


@tool("documents.share", effects={Effect.WRITE}, resource_kind="Document", locate=telling)
async def share(ctx: ToolContext, how: str) -> bool:
    """Share a document."""
    return True
'''
OBJECTING = """
from pathlib import Path

def telling(call):
    return "the bank says " + (Path(__file__).parent.parent.parent / "bank.secret").read_text()

async def {}(run, request):
    return await run.call("put.none", value=1)
"""
LOCKING = """
async def locking(run, request):
    await run.call("accounts.lock", account="hannah.lee")
    person = await run.call("people.read", number=1)
    await run.call("payments.refund", order=4, amount={"amount": "60.00", "currency": "EUR"}, account="DE1")
    return {"said": await run.call("notes.add", text="hannah.lee and " + person["name"])}
"""
SHOUTING = """
async def shouting(run, request):
    person = await run.call("people.read", number=1)
    await run.call("notes.add", text=person["name"].upper() + " asks")
    await run.call("payments.refund", order=4, amount={"amount": "60.00", "currency": "EUR"}, account="DE1")
    await run.call("notes.add", text="spelled " + person["name"][::-1] + " and " + request["account"].lower())
    return {"said": await run.call("notes.add", text=person["name"].encode().hex())}
"""


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    tools = made.folder / "tools" / "shop.py"
    tools.write_text(tools.read_text().replace("import Connection,", "import Connection, FieldClass,") + MORE_TOOLS)
    ask = {"autonomy": "approve", "approval": {"by": "role:care-lead", "within": "4h"}}
    made.contract("desk", [{"tool": "people.read"}, write_action("documents.share")])
    checked = write_action("put.none", verify=["rule:telling"])
    made.contract("denied", [checked], workflow=OBJECTING.format("denied"))
    made.contract("held", [{**checked, **ask}], workflow=OBJECTING.format("held"))
    locking = [write_action("accounts.lock"), {"tool": "people.read"}, {"tool": "notes.add"}, REFUND]
    made.contract("locking", locking, workflow=LOCKING)
    made.contract("shouting", [{"tool": "people.read"}, {"tool": "notes.add"}, REFUND], workflow=SHOUTING)
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


def ended(remit: Remit, run: str) -> Event:
    [found] = [e for e in remit.journal.reader.events(run) if e.type is EventType.CALL_COMPLETED]
    return found


async def test_a_result_reaches_the_agent_in_full_and_the_record_without_personal_data(remit: Remit) -> None:
    async with remit.gate("desk").run({}) as run:
        read = await run.propose("people.read", {"number": 1})
    assert isinstance(read, Completed)
    whole = {"name": "Rosalind Franklin", "text": "write to rosalind@kings.example", "notes": ["photo 51"]}
    assert read.result == whole
    completed = ended(remit, run.id)
    shown: Any = completed.body["result"]
    # What the tool declares, and what is found in a text that it does not declare.
    assert shown["name"].startswith("<personal:")
    assert shown["notes"][0].startswith("<personal:")
    assert shown["text"].startswith("write to <email:")
    assert not [part for part in ("Franklin", "photo 51", "kings.example") if part in repr(completed.body)]
    # The run itself can go on from it.
    assert completed.sealed == {"result": whole}


@pytest.mark.parametrize(("how", "outcome"), [("refused", Denied), ("busy", Deferred)])
async def test_a_refusal_that_quotes_a_credential_reaches_neither_the_agent_nor_the_record_with_it(
    remit: Remit, how: str, outcome: type[Denied | Deferred]
) -> None:
    async with remit.gate("desk").run({}) as run:
        refused = await run.propose("documents.share", {"how": how})
    assert isinstance(refused, outcome)
    assert "refused for shop:<" in refused.message
    assert SECRET not in refused.message
    assert SECRET not in repr([(e.body, e.sealed) for e in remit.journal.reader.events(run.id)])


async def test_an_objection_that_quotes_a_credential_is_told_to_nobody_with_it(remit: Remit) -> None:
    result = await remit.run("held", {})
    assert result.case is not None
    case = remit.cases.get(result.case)
    shown = remit.cases.question(case)["shown"]
    assert "the bank says <" in shown["reason"]
    told = await remit.run("denied", {})
    everything = repr((case, shown, told, [remit.journal.reader.events(r.run) for r in (result, told)]))
    assert SECRET not in everything


async def test_what_a_declared_field_held_is_concealed_in_a_run_that_is_taken_up_again_as_well(remit: Remit) -> None:
    held = await remit.run("locking", {})
    assert held.case is not None
    await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("lee"))
    result = await remit.engine.drive(held.run)
    assert result.output == {"said": "hannah.lee and Rosalind Franklin"}
    shown = repr([event.body for event in remit.journal.reader.events(held.run)])
    assert "hannah.lee" not in shown
    assert "Franklin" not in shown


async def test_what_is_known_in_a_run_is_concealed_in_other_spellings_also_once_it_is_taken_up_again(remit: Remit) -> None:
    account = "DE89370400440532013000"
    held = await remit.run("shouting", {"account": account})
    assert held.case is not None
    await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("lee"))
    name = "Rosalind Franklin"
    assert (await remit.engine.drive(held.run)).output == {"said": name.encode().hex()}
    shown = repr([event.body for event in remit.journal.reader.events(held.run)])
    for spelled in (name.upper(), name[::-1], name.encode().hex(), account.lower()):
        assert spelled not in shown
    assert "spelled <personal:" in shown
