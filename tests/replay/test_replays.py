"""What replays leave behind: one event on the register, and everything else as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from desk import destroy_keys, make_desk, replay, run, the_one, with_remit
from sqlalchemy import event, select, update

from project import Shop
from remit import Remit
from remit.journal.events import Event, EventType
from remit.replay.changes import parse_change
from remit.replay.recorded import Choice
from remit.replay.redecide import redecide
from remit.storage import schema


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    return make_desk(tmp_path / "shop", database_url)


_GROWS = {"events", "run_keys", "trees", "tiles", "checkpoints"}
"""Where the register's own event goes."""


def tables(shop: Shop) -> dict[str, Any]:
    """Every row that a replay must leave alone."""

    async def read(remit: Remit) -> dict[str, Any]:
        await remit.sequencer.close()
        found: dict[str, Any] = {}
        with remit.database.engine.connect() as connection:
            for name, table in schema.metadata.tables.items():
                if name not in _GROWS:
                    found[name] = sorted(connection.execute(select(table)).all(), key=repr)
            for table in (schema.events, schema.run_keys):
                own = select(table).where(~table.c.run.startswith("register-"))
                found[table.name] = sorted(connection.execute(own).all(), key=repr)
        return found

    return with_remit(shop, read)


def test_a_replay_changes_nothing_but_the_register(shop: Shop, tmp_path: Path) -> None:
    run(shop, mail="ann@shop.example")
    run(shop, amount="60.00")
    run(shop, do="escalate", mail="ann@shop.example")
    policy = tmp_path / "stricter.cedar"
    policy.write_text('@id("no") @reason("no")\nforbid (principal, action == Action::"payments.refund", resource);\n')
    before, ledger = tables(shop), shop.tries()
    for level in (0, 1, 2):
        replay(shop, level)
    replay(shop, 1, "recorded")

    async def what_if(remit: Remit) -> None:
        await remit.counterfactuals.compare(Choice(last=9), parse_change(f"policy={policy}", remit.project), {})

    with_remit(shop, what_if)
    assert tables(shop) == before
    assert shop.tries() == ledger


def test_every_replay_is_on_the_register(shop: Shop) -> None:
    first, second = run(shop), run(shop, do="write")
    report = replay(shop)

    async def register(remit: Remit) -> Any:
        return remit.register.events()[-1]

    noted = with_remit(shop, register)
    assert noted.type is EventType.RUN_REPLAYED
    assert noted.body == {
        "level": 1,
        "code": "present",
        "change": None,
        "counts": report.counts,
        "runs": [first, second],
    }


def test_runs_are_chosen_by_number_time_and_contract_and_shown_the_oldest_first(shop: Shop) -> None:
    made = [run(shop, do="nothing") for _ in range(3)]
    shop.contract("other", [{"tool": "orders.read"}], workflow="async def other(run, request):\n    return {}\n")

    async def another(remit: Remit) -> str:
        return (await remit.run("other", {})).run

    made.append(with_remit(shop, another))

    def chosen(**choice: Any) -> list[str]:
        return [each.recorded.run for each in replay(shop, 0, **choice).runs]

    assert chosen(last=10) == made
    assert chosen(last=2) == made[2:]
    assert chosen(last=2, contract="desk") == made[1:3]
    third = replay(shop, 0, run=made[2]).runs[0].recorded.opened_at
    assert chosen(since=third) == made[2:]


def test_many_runs_are_read_by_as_many_queries_as_one(shop: Shop) -> None:
    def queries(last: int) -> int:
        async def use(remit: Remit) -> int:
            asked: list[str] = []

            def note(*args: Any) -> None:
                asked.append(args[2])

            event.listen(remit.database.engine, "before_cursor_execute", note)
            assert len(remit.replays.read(Choice(last=last))) == last
            return len(asked)

        return with_remit(shop, use)

    for _ in range(6):
        run(shop)
    assert queries(6) == queries(1) == 3


def test_a_damaged_run_is_named_and_hides_no_other(shop: Shop) -> None:
    damaged, sound = run(shop), run(shop)

    async def damage(remit: Remit) -> None:
        chosen = (schema.events.c.run == damaged, schema.events.c.n == 3)
        with remit.database.engine.begin() as connection:
            connection.execute(update(schema.events).where(*chosen).values(body=b"\0" * 64))

    with_remit(shop, damage)
    first, second = replay(shop).runs
    assert (first.recorded.run, first.result, second.recorded.run, second.result) == (
        damaged,
        "undetermined",
        sound,
        "identical",
    )
    assert f"body/{damaged}/3" in first.why


def test_each_decision_of_policy_is_reproduced_by_its_own_policy_also_after_that_was_changed(shop: Shop) -> None:
    run(shop)
    run(shop, amount="60.00")
    assert [each.result for each in replay(shop, 2).runs] == ["identical", "identical"]
    (shop.folder / "contracts" / "desk" / "policy.cedar").write_text(
        '@id("no") @reason("no")\nforbid (principal, action == Action::"orders.read", resource);\n'
    )
    report = replay(shop, 2)
    assert [each.result for each in report.runs] == ["identical", "identical"]
    assert report.counts["reproduced"] == 4


def test_a_decision_that_policy_would_not_make_so_is_not_reproduced(shop: Shop) -> None:
    run(shop)

    async def tampered(remit: Remit) -> list[bool | None]:
        (recorded,) = remit.replays.read(Choice(last=1))
        policy = remit.program("desk").authority.policy
        for old, new in (("grant:orders.read", "grant:other"), ("allow", "hold"), ("allow", "deny")):
            changed = [_otherwise(each, old, new) for each in recorded.events]
            found = redecide(msgspec.structs.replace(recorded, events=changed), policy)
            assert next(one.reproduced for one in found) is False, (old, new)
        return [one.reproduced for one in redecide(recorded, policy)]

    assert with_remit(shop, tampered) == [True, True]


def _otherwise(each: Event, old: str, new: str) -> Event:
    """The event as if it had recorded another rule or verdict."""
    header = each.header
    if header.verdict == old:
        code = {"code": "forbidden"} if new == "deny" else {}
        body = {**each.body, "verdict": {**each.body["verdict"], **code}}
        return msgspec.structs.replace(each, header=msgspec.structs.replace(header, verdict=new), body=body)
    if each.type is EventType.CALL_DECIDED and old in each.body["verdict"]["rules"]:
        return msgspec.structs.replace(each, body={**each.body, "verdict": {"kind": "allow", "rules": [new]}})
    return each


def test_a_decision_over_facts_that_are_only_pseudonyms_now_is_undetermined(tmp_path: Path, database_url: str) -> None:
    policy = (
        '@id("mail") @reason("no mail")\nforbid (principal, action == Action::"payments.refund", resource)\n'
        'when { context.args.account == "nobody@shop.example" };\n'
    )
    workflow = """
async def desk(run, request):
    await run.call("orders.read", order=1)
    amount = {"amount": "5.00", "currency": "EUR"}
    await run.call("payments.refund", order=4, amount=amount, account=request["account"])
    return {}
"""
    shop = make_desk(tmp_path / "shop", database_url, workflow, policy=policy)
    run(shop, account="ann@shop.example")
    assert the_one(replay(shop, 2)).result == "identical"
    destroy_keys(shop, "sealed_key")
    found = the_one(replay(shop, 2))
    assert (found.result, [one.reproduced for one in found.decisions]) == ("undetermined", [True, None])
    assert "only as pseudonyms" in found.why


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ('context.args.account == "nobody@shop.example"', "forbidden"),
        ('context.args.order + 9223372036854775807 > 0 && context.args.account == "x"', "policy_ambiguous"),
    ],
)
def test_a_denial_by_policy_is_decided_again_from_the_facts_that_it_was_made_from(
    tmp_path: Path, database_url: str, condition: str, code: str
) -> None:
    policy = (
        '@id("mail") @reason("no mail")\nforbid (principal, action == Action::"payments.refund", resource)\n'
        f"when {{ {condition} }};\n"
    )
    workflow = """
async def desk(run, request):
    amount = {"amount": "5.00", "currency": "EUR"}
    await run.propose("payments.refund", {"order": 4, "amount": amount, "account": request["account"]})
    return {}
"""
    shop = make_desk(tmp_path / "shop", database_url, workflow, policy=policy)
    run(shop, account="nobody@shop.example")

    async def denied(remit: Remit) -> Event:
        (recorded,) = remit.replays.read(Choice(last=1))
        return next(each for each in recorded.events if each.header.verdict == "deny")

    event = with_remit(shop, denied)
    assert event.body["verdict"]["code"] == code
    # Redacted as on any other decision, with the original sealed beside it.
    assert event.body["facts"]["args"]["account"].startswith("<email:")
    assert event.sealed["facts"]["args"]["account"] == "nobody@shop.example"
    found = the_one(replay(shop, 2))
    assert (found.result, [one.reproduced for one in found.decisions]) == ("identical", [True])
    # What the record says now is what decides: from other facts the same policy comes to another verdict.
    changed = msgspec.structs.replace(
        event, sealed={**event.sealed, "facts": {"args": {**event.sealed["facts"]["args"], "order": -1, "account": "DE0933"}}}
    )

    async def again(remit: Remit) -> list[bool | None]:
        (recorded,) = remit.replays.read(Choice(last=1))
        events = [changed if each.header.n == event.header.n else each for each in recorded.events]
        found = redecide(msgspec.structs.replace(recorded, events=events), remit.program("desk").authority.policy)
        return [one.reproduced for one in found]

    assert with_remit(shop, again) == [False]


def test_code_that_was_put_into_the_archive_without_the_master_key_is_never_run(shop: Shop) -> None:
    run(shop)

    async def plant(remit: Remit) -> None:
        code = (await remit_archive_code(remit))["workflow.py"]
        with remit.database.engine.begin() as connection:
            planted = b"\0" * 12 + b"async def desk(run, request): ..."
            connection.execute(update(schema.sources).where(schema.sources.c.digest == code).values(text=planted))

    async def remit_archive_code(remit: Remit) -> dict[str, str]:
        release = remit.replays.read(Choice(last=1))[0].release
        kept = remit.release_archive.get(release)
        assert kept is not None
        return kept.bundle["code"]

    with_remit(shop, plant)
    (shop.folder / "contracts" / "desk" / "policy.cedar").write_text("// changed\n")
    found = the_one(replay(shop, 1, "recorded"))
    assert found.result == "undetermined"
    assert "can't be decrypted" in found.why
