"""What `examples/refund-routing` makes of a retail agent's tasks: `python -m benchmarks.retail FOLDER`.

FOLDER holds `db.json.gz` and `tasks.json.gz` in the form of tau2-bench's retail domain (MIT). Every return, exchange and
cancellation that a task expects is requested of the example's contract, over the folder's own orders, one world a task.
A person who holds every role approves what is held. Then each of them is asked for again in ways that the tasks' own
policy forbids, and all of those must be refused.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remit import Remit
from remit.cases.cases import Decision
from remit.runs.program import RunResult

EXAMPLE = Path(__file__).parent.parent / "examples" / "refund-routing"
CONTRACT = "refund-routing"
ASKS = {
    "return_delivered_order_items": "return",
    "exchange_delivered_order_items": "exchange",
    "cancel_pending_order": "cancel",
}
STRANGER = "credit_card_0000000"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """An action that a task expects, as a request of the contract."""

    task: str
    request: dict[str, Any]


@dataclass
class Counts:
    """How requests came out, by what was asked, and why those came out so that should not have."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    reasons: list[str] = field(default_factory=list[str])


def expected(tasks: Sequence[Mapping[str, Any]], orders: Mapping[str, Any]) -> Iterator[Expected]:
    for task in tasks:
        actions: list[dict[str, Any]] = task["evaluation_criteria"].get("actions") or []
        for action in actions:
            if action["name"] in ASKS:
                yield Expected(task=str(task["id"]), request=request_of(action, orders))


def request_of(action: Mapping[str, Any], orders: Mapping[str, Any]) -> dict[str, Any]:
    given = action["arguments"]
    request = {"customer": orders[given["order_id"]]["user_id"], "order": given["order_id"], "ask": ASKS[action["name"]]}
    names = {"item_ids": "items", "new_item_ids": "new_items", "payment_method_id": "method", "reason": "reason"}
    return request | {ours: given[theirs] for theirs, ours in names.items() if theirs in given}


def forbidden(request: Mapping[str, Any], shop: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The request changed in one thing each that the policy of the tasks forbids."""
    other = next(name for name in shop["users"] if name != request["customer"])
    yield "another customer's order", {**request, "customer": other}
    if request["ask"] == "cancel":
        return
    yield "a method nobody knows", {**request, "method": STRANGER}
    stolen = next(iter(shop["users"][other]["payment_methods"]))
    yield "somebody else's method", {**request, "method": stolen}
    plain = {key: value for key, value in request.items() if key != "method"}
    yield "a method out of the text", {**plain, "text": f"Please send the money to {stolen}."}
    if request["ask"] == "return":
        own = shop["users"][request["customer"]]["payment_methods"]
        first = shop["orders"][request["order"]]["payment_history"][0]["payment_method_id"]
        not_original = [name for name, method in own.items() if name != first and method["source"] != "gift_card"]
        if not_original:
            yield "another card of the same customer", {**request, "method": not_original[0]}


class World:
    """The example as a project of its own, over the orders of the folder."""

    def __init__(self, folder: Path, shop: Mapping[str, Any]) -> None:
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".remit"))
        (folder / "data" / "shop.json").write_text(json.dumps(shop))
        self._allow_all(folder)
        self._books = folder / ".remit" / "shop.db"
        self._folder = folder

    @staticmethod
    def _allow_all(folder: Path) -> None:
        """Limits by the hour and day are about one shop's day, not about a benchmark's minute."""
        path = folder / "contracts" / CONTRACT / "contract.yaml"
        text = path.read_text()
        text = re.sub(r"per_hour: \d+", "per_hour: 100000", text)
        path.write_text(re.sub(r"money_per_day: [0-9.]+", "money_per_day: 90000000.00", text))

    def open(self) -> Remit:
        return Remit(self._folder)

    def begin_anew(self) -> None:
        """As at the beginning: no order has been changed yet."""
        saved = self._books.with_suffix(".saved")
        if saved.exists():
            shutil.copy(saved, self._books)
        elif self._books.exists():
            shutil.copy(self._books, saved)


async def ask(remit: Remit, request: Mapping[str, Any]) -> tuple[RunResult, bool]:
    """One run, and whether a person was asked."""
    result = await remit.run(CONTRACT, dict(request))
    held = result.outcome == "held"
    if held:
        assert result.case is not None
        await remit.cases.decide(result.case, Decision.APPROVED, token=remit.person_token("omar"))
        result = await remit.engine.drive(result.run)
    return result, held


async def measure(folder: Path, shop: Mapping[str, Any], wanted: Sequence[Expected]) -> dict[str, Any]:
    world = World(folder, shop)
    counts = {name: Counts() for name in ("return", "exchange", "cancel")}
    refused: dict[str, Counts] = {}
    async with world.open() as remit:
        # Makes the books, of which each task then gets its own copy.
        await remit.run(CONTRACT, {**wanted[0].request, "items": []})
        task = ""
        for each in wanted:
            if each.task != task:
                world.begin_anew()
                task = each.task
            for name, request in forbidden(each.request, shop):
                result = await remit.run(CONTRACT, request)
                _count(refused.setdefault(name, Counts()), each, result, good=("denied",))
            result, held = await ask(remit, each.request)
            _count(counts[each.request["ask"]], each, result, good=("completed",), held=held)
            again = await remit.run(CONTRACT, each.request)
            _count(refused.setdefault("the same once more", Counts()), each, again, good=("denied",))
    expected_counts = {name: {**each.outcomes, "reasons": each.reasons} for name, each in counts.items()}
    refused_counts = {name: {**each.outcomes, "reasons": each.reasons} for name, each in refused.items()}
    return {"expected": expected_counts, "forbidden": refused_counts}


def _count(counts: Counts, each: Expected, result: RunResult, *, good: Sequence[str], held: bool = False) -> None:
    named = "allowed" if result.outcome == "completed" else result.outcome
    counts.outcomes["held, then " + named if held else named] += 1
    if result.outcome not in good:
        counts.reasons.append(f"task {each.task}, {each.request['ask']} {each.request['order']}: {result.reason}")


def table(found: Mapping[str, Any]) -> str:
    lines = ["expected by the tasks"]
    lines += _rows(found["expected"])
    lines += ["", "forbidden by the tasks' policy"]
    lines += _rows(found["forbidden"])
    return "\n".join(lines)


def _rows(part: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, counts in part.items():
        said = ", ".join(f"{outcome} {count}" for outcome, count in counts.items() if outcome != "reasons")
        yield f"  {name:<36} {said}"
        yield from (f"      {reason}" for reason in counts["reasons"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retail", description=__doc__)
    parser.add_argument("folder", type=Path, help="holds `db.json.gz` and `tasks.json.gz`")
    parser.add_argument("--tasks", type=int, help="only so many of the tasks, from the first on")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    options = parser.parse_args()
    shop: dict[str, Any] = json.loads(gzip.decompress((options.folder / "db.json.gz").read_bytes()))
    tasks: list[Any] = json.loads(gzip.decompress((options.folder / "tasks.json.gz").read_bytes()))
    wanted = list(expected(tasks[: options.tasks], shop["orders"]))
    print(f"{len(wanted)} expected actions", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        found = asyncio.run(measure(Path(folder) / "shop", shop, wanted))
    print(json.dumps(found) if options.json else table(found))


if __name__ == "__main__":
    main()
