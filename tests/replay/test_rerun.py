"""Level 1: the code runs again over the recorded answers, and what it does otherwise is found where it does it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from desk import WORKFLOW, change_code, destroy_keys, make_desk, replay, run, the_one, with_remit

from project import Shop
from remit import Remit
from remit.cases.cases import Decision
from remit.replay.compare import Divergence
from remit.replay.reaching_out import ReachedOut, kept_in
from remit.replay.recorded import Choice


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    return make_desk(tmp_path / "shop", database_url)


def apart(shop: Shop) -> Divergence:
    found = the_one(replay(shop))
    assert found.result == "diverged"
    assert found.divergence is not None
    return found.divergence


@pytest.mark.parametrize("do", ["pay", "escalate", "break", "write", "nothing"])
def test_unchanged_code_does_the_same_and_reaches_nothing(shop: Shop, do: str) -> None:
    run(shop, do=do, mail="ann@shop.example")
    tried = shop.tries()
    found = the_one(replay(shop))
    assert (found.result, found.why, found.note) == ("identical", "", "")
    assert shop.tries() == tried


@pytest.mark.parametrize("decision", [Decision.APPROVED, Decision.DENIED])
def test_a_run_that_waited_for_a_person_does_the_same(shop: Shop, decision: Decision) -> None:
    run(shop, decision, amount="60.00")
    assert the_one(replay(shop)).result == "identical"


def test_other_arguments_are_found_with_their_place(shop: Shop) -> None:
    run(shop)
    change_code(shop, 'order=request["order"], amount', "order=5, amount")
    found = apart(shop)
    assert (found.step, found.differing) == ("3", ("order",))
    assert (found.expected.values["order"], found.came.values["order"]) == (4, 5)


def test_another_tool_is_found(shop: Shop) -> None:
    run(shop, do="write")
    change_code(shop, '"put.none", value', '"risk.check", order')
    found = apart(shop)
    assert (found.step, found.expected.what, found.came.what) == ("3", "a call of `put.none`", "a call of `risk.check`")


def test_what_the_code_would_do_beyond_its_record_is_found(shop: Shop) -> None:
    run(shop)
    change_code(shop, "    return {", '    await run.call("risk.check", order=9)\n    return {')
    found = apart(shop)
    assert (found.step, found.expected.what, found.came.what) == ("4", "the end: completed", "a call of `risk.check`")


def test_a_step_that_the_code_does_not_ask_for_any_more_is_found(shop: Shop) -> None:
    run(shop, do="write")
    change_code(shop, 'if do == "write":', "if False:")
    found = apart(shop)
    assert (found.step, found.expected.what, found.came.what) == ("3", "a call of `put.none`", "the end: completed")


def test_another_output_is_found_and_shown_redacted(shop: Shop) -> None:
    run(shop, mail="ann@shop.example")
    change_code(shop, 'request.get("mail")}', '"bob@shop.example"}')
    found = apart(shop)
    assert (found.step, found.differing) == ("end", ("output.mail",))
    assert "bob@" not in str(found)
    assert found.came.values["output"]["mail"].startswith("<email:")


def test_another_reason_of_an_escalation_is_found(shop: Shop) -> None:
    run(shop, do="escalate", mail="ann@shop.example")
    change_code(shop, '" asks"', '" insists"')
    assert apart(shop).differing == ("reason",)


def test_a_workflow_that_catches_everything_does_not_hide_that_it_came_apart(shop: Shop) -> None:
    run(shop)
    change_code(shop, "async def desk(run, request):\n", "async def desk(run, request):\n  try:\n    return await desk_(run, request)\n  except Exception:\n    return {}\n\n\nasync def desk_(run, request):\n")
    change_code(shop, 'order=request["order"], amount', "order=5, amount")
    assert apart(shop).step == "3"


def test_a_time_where_the_record_has_an_id_is_found(shop: Shop) -> None:
    run(shop)
    change_code(shop, "run.now()", "run.uuid()")
    found = apart(shop)
    assert (found.step, found.expected.what, found.came.what) == ("2", "`now`", "`uuid`")


def test_branches_are_held_apart_by_their_paths(tmp_path: Path, database_url: str) -> None:
    workflow = """
async def desk(run, request):
    return {"all": await run.gather(*(run.call("risk.check", order=n) for n in (1, 2, 3)), run.now())}
"""
    shop = make_desk(tmp_path / "shop", database_url, workflow)
    run(shop)
    assert the_one(replay(shop)).result == "identical"
    change_code(shop, "(1, 2, 3)", "(1, 3, 2)")
    assert apart(shop).differing == ("order",)


def test_the_code_of_the_record_runs_again_whatever_stands_in_the_project_now(shop: Shop) -> None:
    run(shop)
    change_code(shop, 'order=request["order"], amount', "order=5, amount")
    found = the_one(replay(shop, code="recorded"))
    assert (found.result, found.why) == ("identical", "")
    assert the_one(replay(shop)).cause == "changed since: code `workflow.py`"


@pytest.mark.parametrize(
    ("file", "old", "new", "cause"),
    [
        ("contracts/desk/policy.cedar", "", "// stricter\n", "policy"),
        ("contracts/desk/contract.yaml", '"try something"', '"try it"', "contract `purpose`"),
        ("contracts/desk/schemas/out.json", "object", "object", ""),
        ("tools/shop.py", "the account is closed", "it is closed", "tool code `orders.read`"),
        ("tools/shop.py", '"""Read an order."""', '"""Read one order."""', "tool schema `orders.read`"),
    ],
)
def test_what_has_changed_of_a_release_is_named_part_by_part(shop: Shop, file: str, old: str, new: str, cause: str) -> None:
    run(shop)
    path = shop.folder / file
    path.write_text(path.read_text().replace(old, new, 1))
    found = the_one(replay(shop))
    assert found.result == "identical"
    assert cause in found.changed if cause else found.changed == ()


def test_code_that_is_not_deterministic_is_named_as_the_cause(shop: Shop) -> None:
    change_code(shop, "async def desk", "import time\n\n\nasync def desk")
    change_code(shop, 'request.get("mail")}', "time.time_ns()}")
    run(shop)
    found = the_one(replay(shop))
    assert found.result == "diverged"
    assert "isn't deterministic" in found.cause


def test_code_that_reaches_out_by_itself_is_kept_from_it(shop: Shop) -> None:
    mark = shop.folder / "mark"
    change_code(shop, "    do = ", f"    with open({str(mark)!r}, 'a') as file:\n        file.write('x')\n    do = ")
    run(shop)
    found = the_one(replay(shop))
    assert found.result == "undetermined"
    assert "reaches out by itself (`open`" in found.why
    assert mark.read_text() == "x"


REACHING = {
    "in the default executor": "    await asyncio.get_running_loop().run_in_executor(None, MARK.write_text, 'x')\n",
    "in an executor of its own": "    with ThreadPoolExecutor(1) as pool:\n        pool.submit(MARK.write_text, 'x')\n",
    "in an executor of its module": "    await asyncio.wrap_future(POOL.submit(MARK.write_text, 'x'))\n",
    "by to_thread": "    await asyncio.to_thread(MARK.write_text, 'x')\n",
    "in a thread": "    one = Thread(target=MARK.write_text, args=('x',))\n    one.start()\n    one.join()\n",
    "in a thread of a thread": (
        "    inner = Thread(target=MARK.write_text, args=('x',))\n"
        "    one = Thread(target=lambda: (inner.start(), inner.join()))\n    one.start()\n    one.join()\n"
    ),
    "in a bare thread": (
        "    done = Lock()\n    done.acquire()\n"
        "    def write():\n        try:\n            MARK.write_text('x')\n        except BaseException:\n            pass\n"
        "        finally:\n            done.release()\n"
        "    start_new_thread(write, ())\n    done.acquire()\n"
    ),
    "by a link": "    MARK.symlink_to('elsewhere')\n",
    "by a hard link": "    os.link(__file__, MARK)\n",
    "by a mode": "    os.chmod(__file__, 0o600 if os.stat(__file__).st_mode & 0o77 else 0o644)\n    MARK.touch()\n",
    "by a time": "    os.utime(__file__, (1, 1))\n    MARK.touch()\n",
    "by a fork": (
        "    if (child := os.fork()) == 0:\n        os.close(os.open(MARK, os.O_CREAT))\n        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    ),
    "by a datagram": (
        "    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:\n"
        "        try:\n            one.sendmsg([b'x'], [], 0, str(MARK.parent / 'nobody'))\n"
        "        except OSError:\n            MARK.touch()\n"
    ),
    "by a signal": "    os.kill(os.getpid(), 0)\n    MARK.touch()\n",
    "by a task left behind": "    asyncio.get_running_loop().call_soon(MARK.write_text, 'x')\n    await asyncio.sleep(0)\n",
}
IMPORTS = """import asyncio, os, socket
from _thread import start_new_thread
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock, Thread
POOL = ThreadPoolExecutor(1)
MARK = Path({mark!r})
"""


@pytest.mark.parametrize("way", REACHING)
def test_what_the_code_would_reach_beside_its_run_is_not_reached_again(shop: Shop, way: str) -> None:
    mark = shop.folder / "mark"
    change_code(shop, "    do = ", REACHING[way] + "    do = ")
    path = shop.folder / "contracts" / "desk" / "workflow.py"
    path.write_text(IMPORTS.format(mark=str(mark)) + path.read_text())
    run(shop)
    assert mark.exists() or mark.is_symlink()
    mark.unlink()
    found = the_one(replay(shop))
    assert not mark.exists()
    assert not mark.is_symlink()
    assert (found.result, "reaches out by itself" in found.why) == ("undetermined", True)


def test_code_that_only_computes_in_threads_is_as_it_was_and_the_record_is_written_meanwhile(shop: Shop) -> None:
    path = shop.folder / "contracts" / "desk" / "workflow.py"
    change_code(shop, "    do = ", "    assert await asyncio.get_running_loop().run_in_executor(None, sum, [1, 2]) == 3\n    do = ")
    path.write_text("import asyncio\n" + path.read_text())
    run(shop)

    async def use(remit: Remit) -> list[str]:
        reports = [remit.replays.replay(Choice(last=50), 1, "present") for _ in range(3)]
        found, _ = await asyncio.gather(asyncio.gather(*reports), remit.sequencer.integrate(publish=True))
        return [the_one(one).result for one in found]

    assert with_remit(shop, use) == ["identical"] * 3


def test_a_thread_that_outlives_its_replay_is_kept_in_and_others_are_free_again(shop: Shop, tmp_path: Path) -> None:
    async def use() -> list[str]:
        tried: list[str] = []

        def write(name: str) -> None:
            began.wait()
            try:
                (tmp_path / name).write_text("x")
            except ReachedOut:
                tried.append(name)

        began = threading.Event()
        threads = [threading.Thread(target=write, args=(name,)) for name in ("before", "within", "after")]
        threads[0].start()
        with kept_in():
            threads[1].start()
        threads[2].start()
        began.set()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        return tried

    assert asyncio.run(use()) == ["within"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["after", "before"]


def test_a_run_that_is_not_ended_is_undetermined_and_one_that_came_apart_is_not(shop: Shop) -> None:
    run(shop, amount="60.00")
    assert the_one(replay(shop)).why == "it is not ended (held); the 3 steps so far came out the same"
    change_code(shop, 'order=request["order"], amount', "order=5, amount")
    assert apart(shop).step == "3"


def test_a_run_that_a_person_ended_is_the_same_as_far_as_it_went(shop: Shop) -> None:
    held = run(shop, amount="60.00")

    async def close(remit: Remit) -> None:
        await remit.close_run(held, token=remit.person_token("lee"), reason="not wanted")

    with_remit(shop, close)
    found = the_one(replay(shop))
    assert (found.result, found.note) == (
        "identical",
        "it was ended from outside of its code; the 3 steps until then came out the same",
    )


def test_a_run_whose_time_was_over_is_the_same_as_far_as_it_went(tmp_path: Path, database_url: str) -> None:
    workflow = """
import asyncio
async def desk(run, request):
    await run.call("orders.read", order=1)
    await asyncio.Event().wait()
"""
    budget = {"calls": 30, "writes": 20, "time": "1s"}
    shop = make_desk(tmp_path / "shop", database_url, workflow, budget=budget)
    run(shop)
    change_code(shop, "await asyncio.Event().wait()", 'await run.call("risk.check", order=1)')
    found = the_one(replay(shop))
    assert (found.result, found.recorded.reason) == ("identical", "the run's time of 1s is over")


def test_an_agent_that_lives_elsewhere_has_no_code_to_run_again(shop: Shop) -> None:
    shop.contract("away", [{"tool": "orders.read"}])

    async def propose(remit: Remit) -> None:
        async with remit.gate("away").run({"order": 1}) as session:
            await session.propose("orders.read", {"order": 1})

    with_remit(shop, propose)
    found = the_one(replay(shop))
    assert (found.result, len(found.lines)) == ("undetermined", 1)
    assert "lives elsewhere" in found.why


def test_an_agent_that_lives_elsewhere_is_not_taken_for_the_workflow_of_its_contract(shop: Shop) -> None:
    async def propose(remit: Remit) -> None:
        async with remit.gate("desk").run({"order": 4}) as session:
            await session.propose("risk.check", {"order": 1})

    with_remit(shop, propose)
    assert the_one(replay(shop)).result == "undetermined"


def test_a_run_that_was_erased_is_undetermined_and_its_chain_still_holds(shop: Shop) -> None:
    run(shop)
    destroy_keys(shop, "body_key", "sealed_key")
    for level in (1, 2):
        found = the_one(replay(shop, level))
        assert (found.result, found.why) == ("undetermined", "its content was erased")
    found = the_one(replay(shop, 0))
    assert (found.result, found.note) == ("verified", "its content was erased; the chain holds")


def test_without_its_originals_a_run_is_replayed_over_pseudonyms_and_says_so(shop: Shop) -> None:
    run(shop, mail="ann@shop.example")
    destroy_keys(shop, "sealed_key")
    found = the_one(replay(shop))
    assert (found.result, found.note) == ("identical", "over pseudonyms, because its originals were dropped")
    change_code(shop, 'order=request["order"], amount', "order=5, amount")
    found = the_one(replay(shop))
    assert (found.result, found.why) == (
        "undetermined",
        "its originals were dropped, and over pseudonyms it comes out otherwise at step 3",
    )


def test_an_argument_that_is_only_a_pseudonym_now_is_the_same_pseudonym(tmp_path: Path, database_url: str) -> None:
    workflow = """
async def desk(run, request):
    amount = {"amount": "5.00", "currency": "EUR"}
    return {"paid": await run.call("payments.refund", order=4, amount=amount, account="to " + request["mail"])}
"""
    shop = make_desk(tmp_path / "shop", database_url, workflow)
    run(shop, mail="ann@shop.example")
    destroy_keys(shop, "sealed_key")
    found = the_one(replay(shop))
    assert (found.result, found.note) == ("identical", "over pseudonyms, because its originals were dropped")
    change_code(shop, '"to "', '"for "')
    assert the_one(replay(shop)).result == "undetermined"


def test_a_contract_that_is_gone_leaves_its_runs_undetermined_but_for_their_own_code(shop: Shop) -> None:
    run(shop)
    (shop.folder / "contracts" / "desk").rename(shop.folder / "gone")
    found = the_one(replay(shop))
    assert found.result == "undetermined"
    assert "there is no contract `desk`" in found.why
    assert the_one(replay(shop, code="recorded")).result == "identical"


def test_two_replays_at_once_do_not_mix(shop: Shop) -> None:
    from remit.replay.recorded import Choice

    first, second = run(shop), run(shop, do="write")

    async def both(remit: Remit) -> list[str]:
        found = await asyncio.gather(*(remit.replays.replay(Choice(run=one), 1) for one in (first, second)))
        return [the_one(one).result for one in found]

    assert with_remit(shop, both) == ["identical", "identical"]
    assert WORKFLOW in (shop.folder / "contracts" / "desk" / "workflow.py").read_text()
