"""What a tool did is told as far as it can be known, whatever still goes on when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event as Signal
from typing import Any

import pytest

from project import SECRET, Shop, make_shop, write_action
from remit import Completed, Failed, Outcome, Remit, Unknown
from remit.errors import StorageError
from remit.journal.events import Event, EventType

pytestmark = pytest.mark.anyio

MORE_TOOLS = '''
import time

from remit.tools.spec import ANSWERED, Tool, ToolSpec

GO = HOME / "go"
AT_WORK = set()


def pay(ctx, value):
    if not any(line.split()[1] == ctx.idempotency_key for line in lines()):
        append(LEDGER, f"paid {ctx.idempotency_key} {value}")


def nth(ctx):
    """Which attempt this is."""
    append(TRIES, f"tried {ctx.idempotency_key}")
    return len([line for line in TRIES.read_text().splitlines() if line.endswith(ctx.idempotency_key)])


def options(idempotency, attempts=3, timeout_ms=60, reconcile=find):
    retry = Retry(attempts=attempts, backoff_ms=1)
    more = {} if reconcile is None else {"reconcile": reconcile}
    return {"effects": {Effect.WRITE}, "idempotency": idempotency, "retry": retry, "timeout_ms": timeout_ms, **more}


@tool("thread.slow", **options(Idempotency.NONE, timeout_ms=100))
def thread_slow(ctx: ToolContext, value: int) -> int:
    """Pay in a thread that takes longer than it has."""
    nth(ctx)
    time.sleep(0.13)
    append(LEDGER, f"paid {ctx.idempotency_key} {value}")
    return value


@tool("thread.stuck", **options(Idempotency.KEYED))
def thread_stuck(ctx: ToolContext, value: int) -> int:
    """Pay in a thread that hangs."""
    nth(ctx)
    while not GO.exists():
        time.sleep(0.005)
    pay(ctx, value)
    return value


@tool("thread.once", **options(Idempotency.NONE, attempts=1))
def thread_once(ctx: ToolContext, value: int) -> int:
    """Pay in a thread, if there is one."""
    nth(ctx)
    pay(ctx, value)
    return value


async def serve(ctx, value):
    while not GO.exists():
        await asyncio.sleep(0.005)
    pay(ctx, value)


async def ask_server(ctx, value):
    nth(ctx)
    working = asyncio.ensure_future(serve(ctx, value))
    AT_WORK.add(working)
    working.add_done_callback(AT_WORK.discard)
    await asyncio.sleep(30)
    return value


@tool("server.none", **options(Idempotency.NONE))
async def server_none(ctx: ToolContext, value: int) -> int:
    """Ask a server that does not answer."""
    return await ask_server(ctx, value)


@tool("server.keyed", **options(Idempotency.KEYED))
async def server_keyed(ctx: ToolContext, value: int) -> int:
    """Ask a server that does not answer."""
    return await ask_server(ctx, value)


@tool("server.wait", **options(Idempotency.NONE, reconcile=None))
async def server_wait(value: int) -> int:
    """Let the server finish."""
    GO.touch()
    await asyncio.gather(*AT_WORK)
    return value


@tool("server.restarted", **options(Idempotency.NONE, attempts=1))
async def restarted(ctx: ToolContext, value: int) -> int:
    """Ask a server that takes a moment longer than its client lives."""
    nth(ctx)
    asyncio.get_running_loop().call_later(0.03, lambda: append(LEDGER, f"paid {ctx.idempotency_key} {value}"))
    return value


@tool("keyed.late", **options(Idempotency.KEYED))
async def late(ctx: ToolContext, value: int) -> int:
    """Pay, so late that the next attempt meets the first."""
    if nth(ctx) == 1:
        raise OutcomeUnknown("the line went dead")
    pay(ctx, value)
    raise ToolFailed("somebody changed it meanwhile", code="conflict")


@tool("keyed.refused", **options(Idempotency.KEYED))
async def refused(ctx: ToolContext, value: int) -> int:
    """Lose the first answer, and be refused then."""
    if nth(ctx) == 1:
        raise OutcomeUnknown("the line went dead")
    raise ToolFailed("somebody changed it meanwhile", code="conflict")


@tool("none.answered", **options(Idempotency.NONE, attempts=2))
async def answered(ctx: ToolContext, value: int) -> int:
    """Be told that it went wrong."""
    nth(ctx)
    raise OutcomeUnknown("`POST msg` was answered with 500: boom", code=ANSWERED)


@tool("keyed.answered", **options(Idempotency.KEYED, attempts=2))
async def keyed_answered(ctx: ToolContext, value: int) -> int:
    """Lose the first answer, and be told then that it went wrong."""
    dead = nth(ctx) == 1
    raise OutcomeUnknown("the line went dead" if dead else "boom", code=None if dead else ANSWERED)


@tool("none.broken", **options(Idempotency.NONE, reconcile=None))
async def broken(ctx: ToolContext, value: int) -> int:
    """Break."""
    found = {ctx.client("bank", lambda connection: connection).secret.reveal(): value}
    return found["account"]  # here it breaks


@tool("none.telltale", **options(Idempotency.NONE, reconcile=None))
async def telltale(ctx: ToolContext, value: int) -> int:
    """Break with a credential at the place where messages are cut."""
    raise ValueError("x" * 280 + ctx.client("bank", lambda connection: connection).secret.reveal())


async def misread(ctx, args):
    return Reconciled(happened=Happened.YES, result="not a number")


@tool("none.misread", **options(Idempotency.NONE, attempts=1, reconcile=misread))
async def unseen(ctx: ToolContext, value: int) -> int:
    """Pay, lose the answer, and read something else back."""
    pay(ctx, value)
    raise OutcomeUnknown("the line went dead")


async def change(ctx, args):
    attempt = nth(ctx)
    append(LEDGER, f"paid {attempt} {args['value']}")
    args["value"].append(9)
    if attempt == 1:
        raise ToolFailed("busy", retryable=True)
    return None


changing = Tool(
    spec=ToolSpec(
        name="none.changing",
        description="Change its own arguments.",
        input_schema={
            "type": "object",
            "properties": {"value": {"type": "array", "items": {"type": "integer"}}},
            "required": ["value"],
            "additionalProperties": False,
        },
        output_schema={"type": "null"},
        effects=frozenset({Effect.WRITE}),
        retry=Retry(attempts=2, backoff_ms=1),
    ),
    function=change,
)
'''
TOOLS = [
    "thread.slow",
    "thread.stuck",
    "thread.once",
    "server.none",
    "server.keyed",
    "server.wait",
    "server.restarted",
    "keyed.late",
    "keyed.refused",
    "none.answered",
    "keyed.answered",
    "none.broken",
    "none.telltale",
    "none.changing",
    "none.misread",
]


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    with (made.folder / "tools" / "shop.py").open("a") as tools:
        tools.write(MORE_TOOLS)
    made.contract("desk", [write_action(name) for name in (*TOOLS, "odd.write")])
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


async def propose(remit: Remit, tool: str, value: Any = 8) -> tuple[Outcome, list[Event]]:
    """What became of one call, and the events of its run."""
    async with remit.gate("desk").run({}) as run:
        outcome = await run.propose(tool, {"value": value})
    return outcome, remit.journal.reader.events(run.id)


# What goes on by itself


async def test_a_thread_that_outlasts_its_time_is_waited_for_and_not_run_again(remit: Remit, shop: Shop) -> None:
    outcome, _ = await propose(remit, "thread.slow")
    assert outcome == Completed(result=8)
    assert (len(shop.tries()), len(shop.ledger())) == (1, 1)


async def test_a_thread_that_does_not_end_leaves_its_call_unknown_and_is_not_joined_by_a_second_one(
    remit: Remit, shop: Shop
) -> None:
    outcome, _ = await propose(remit, "thread.stuck")
    assert isinstance(outcome, Unknown)
    assert "it is still running; read back: it had not happened by then" in outcome.message
    (shop.folder / "go").touch()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert (len(shop.tries()), len(shop.ledger())) == (1, 1)


async def test_what_no_thread_was_free_for_has_failed_and_does_not_begin_later(remit: Remit, shop: Shop) -> None:
    threads, free = ThreadPoolExecutor(max_workers=1), Signal()
    asyncio.get_running_loop().set_default_executor(threads)
    threads.submit(free.wait)
    outcome, _ = await propose(remit, "thread.once")
    assert outcome == Failed(code="busy", message="no thread was free in time")
    free.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert (shop.tries(), shop.ledger()) == ([], [])


@pytest.mark.parametrize(("tool", "tries"), [("server.none", 1), ("server.keyed", 3)])
async def test_a_server_that_is_still_at_work_makes_no_failure(
    remit: Remit, shop: Shop, tool: str, tries: int
) -> None:
    outcome, events = await propose(remit, tool)
    assert isinstance(outcome, Unknown)
    assert outcome.message == "no answer in time; read back: it had not happened by then"
    assert [event.body["kind"] for event in events if event.type is EventType.CASE_OPENED] == ["unknown"]
    assert (len(shop.tries()), shop.ledger()) == (tries, [])
    await propose(remit, "server.wait")
    assert len(shop.ledger()) == 1


async def test_an_attempt_that_was_refused_because_the_first_one_came_late_is_completed(
    remit: Remit, shop: Shop
) -> None:
    outcome, _ = await propose(remit, "keyed.late")
    assert outcome == Completed(result=8)
    assert (len(shop.tries()), len(shop.ledger())) == (2, 1)


async def test_a_refusal_proves_nothing_of_an_earlier_attempt_that_may_still_come(remit: Remit) -> None:
    outcome, _ = await propose(remit, "keyed.refused")
    assert isinstance(outcome, Unknown)
    assert "the line went dead" in outcome.message
    assert "then: somebody changed it meanwhile" in outcome.message


async def test_what_was_answered_with_an_error_and_is_not_there_has_failed_and_says_so(
    remit: Remit, shop: Shop
) -> None:
    outcome, _ = await propose(remit, "none.answered")
    message = "`POST msg` was answered with 500: boom; read back: it did not happen"
    assert outcome == Failed(code="not_done", message=message)
    assert len(shop.tries()) == 2


async def test_an_error_answers_for_its_own_attempt_alone(remit: Remit) -> None:
    outcome, _ = await propose(remit, "keyed.answered")
    assert isinstance(outcome, Unknown)


async def test_a_call_whose_outcome_was_not_recorded_is_read_back_only_when_it_is_over(shop: Shop) -> None:
    shop.contract(
        "restarted",
        [write_action("server.restarted")],
        workflow="async def restarted(run, request):\n"
        "    return {'paid': await run.call('server.restarted', value=8)}\n",
    )

    def fail(point: str) -> None:
        if point == "before_outcome" and not shop.ledger():
            raise StorageError("the record can't be written")

    async with Remit(shop.folder, crash_point=fail) as remit:
        with pytest.raises(StorageError):
            await remit.run("restarted", {}, request_key="one")
        assert shop.ledger() == []
        result = await remit.run("restarted", {}, request_key="one")
    assert (result.outcome, result.output) == ("completed", {"paid": 8})
    assert (len(shop.tries()), len(shop.ledger())) == (1, 1)


# What a tool breaks or changes


async def test_a_tool_that_breaks_is_told_with_its_error_and_its_line(
    remit: Remit, shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    text = (shop.folder / "tools" / "shop.py").read_text().splitlines()
    line = next(number for number, line in enumerate(text, 1) if "# here it breaks" in line)
    with caplog.at_level(logging.ERROR, "remit"):
        outcome, events = await propose(remit, "none.broken")
    assert isinstance(outcome, Unknown)
    assert outcome.message == f"the tool broke: KeyError: 'account' at tools/shop.py:{line}"
    assert [e.body["message"] for e in events if e.type is EventType.CALL_UNKNOWN] == [outcome.message]
    assert 'return found["account"]' in caplog.text


async def test_a_long_message_is_cut_only_after_the_credentials_in_it_are_gone(
    remit: Remit, caplog: pytest.LogCaptureFixture
) -> None:
    outcome, _ = await propose(remit, "none.telltale")
    assert isinstance(outcome, Unknown)
    assert len(outcome.message) < 400
    assert SECRET[:8] not in outcome.message + caplog.text


async def test_what_was_read_back_is_held_to_the_output_schema_as_an_answer_is(remit: Remit, shop: Shop) -> None:
    outcome, _ = await propose(remit, "none.misread")
    assert isinstance(outcome, Unknown)
    assert outcome.code == "output_invalid"
    assert len(shop.ledger()) == 1


async def test_what_a_tool_does_to_its_arguments_shows_neither_in_the_next_attempt_nor_on_record(
    remit: Remit, shop: Shop
) -> None:
    outcome, events = await propose(remit, "none.changing", [1])
    assert outcome == Completed(result=None)
    assert shop.ledger() == ["paid 1 [1]", "paid 2 [1]"]
    assert [e.body["args"] for e in events if e.type is EventType.CALL_DECIDED] == [{"value": [1]}]


async def test_a_call_that_nobody_waits_for_any_more_has_an_outcome_all_the_same(shop: Shop) -> None:
    begun = asyncio.Event()

    def note(point: str) -> None:
        if point == "before_effect":
            begun.set()

    async with Remit(shop.folder, crash_point=note) as remit:

        async def work() -> None:
            async with remit.gate("desk").run({}, request_key="one") as run:
                await run.propose("odd.write", {"how": "slow"})

        task = asyncio.ensure_future(work())
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        run = remit.engine.run_of("desk", "one")
        assert run is not None
        ended = [event for event in remit.journal.reader.events(run) if event.type is EventType.CALL_UNKNOWN]
        assert "the run ended while this was under way" in ended[0].body["message"]
