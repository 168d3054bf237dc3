"""What is measured: a small service desk under a contract of ten actions, its policies spread over them.

One call writes three fields of a ticket that is looked up first, with a note of some hundred characters: arguments,
facts, labels, three shared limits, a session fact, and policies over all of these, a tenth of which are about the call.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.null_writer import NullWriter
from remit import Remit
from remit.gate.context import Clients
from remit.gate.gate import Gate
from remit.gate.verdicts import Outcome
from remit.identity.keys import master_key
from remit.journal.journal import Journal
from remit.journal.vault import Vault
from remit.runs.foreign import ForeignRun
from remit.runs.run import Run

ACTIONS = 10
CALLS_PER_RUN = 20
"""A run's record is read for labels and session facts, so its length counts; an agent's run has about so many calls."""
TOOL = "desk.update"

PROJECT = """
[project]
name = "bench"
tenant = "bench"
region = "eu"
database = "{database}"
[tools]
modules = ["tools/desk.py"]
[queues.desk]
roles = ["lead"]
[people.lee]
name = "Lee"
roles = ["lead"]
"""
"""The `remit.toml` of every benchmark that has its tools in `tools/desk.py`."""

_TOOLS = '''
from remit import Effect, Idempotency, Resource, tool

async def locate(context, args):
    return Resource(kind="Ticket", id=str(args["ticket"]), tenant=context.tenant, region="eu",
                    attributes={"vip": False, "status": "open"}, version="7")

OPTIONS = {"resource_kind": "Ticket", "resource_attributes": {"vip": "Bool", "status": "String"},
           "idempotency": Idempotency.KEYED, "authority": ("assignee",)}

@tool("desk.update", effects={Effect.WRITE}, locate=locate, **OPTIONS)
async def update(ticket: int, category: str, priority: str, assignee: str, note: str) -> dict[str, str]:
    """Change a ticket."""
    return {"ticket": str(ticket), "status": "open", "version": f"v-{ticket}"}

def other(number):
    @tool(f"desk.other{number}", effects={Effect.WRITE}, locate=locate, **OPTIONS)
    async def do(ticket: int, category: str, priority: str, assignee: str, note: str) -> dict[str, str]:
        """Do something else to a ticket."""
        return {}
    return do

other1, other2, other3, other4, other5, other6, other7, other8, other9 = (other(n) for n in range(1, 10))
'''

_CONTRACT = """
contract: desk
owner: {{team: desk, contact: desk@bench.example}}
purpose: be measured
style: single
input: schemas/in.json
output: schemas/out.json
actions:
{actions}
facts:
  updates: {{count: desk.update, within: 1h}}
budget: {{calls: 100000, writes: 100000, time: 1d}}
limits: {{calls_per_minute: 100000000, writes_per_hour: 100000000}}
escalate: {{to: "queue:desk", sla: 30m}}
success: {{metric: done}}
slo: {{success: 90%}}
"""

_CONDITIONS = (
    'context.args.category == "blocked-{n}"',
    'context.args.priority == "p{n}" && resource.vip',
    'resource.status == "frozen-{n}"',
    'context.from.assignee.contains("untrusted") && context.args.assignee == "admin-{n}"',
    "context.facts.updates > 100{n}",
    'context.classes.contains("card") && context.args.category == "c-{n}"',
    "context.attempt > 10{n}",
)


def tools() -> list[str]:
    return [TOOL, *(f"desk.other{number}" for number in range(1, ACTIONS))]


def make_project(folder: Path, *, policies: int, database: str = "sqlite:.remit/remit.db") -> Path:
    """A project whose contract has about `policies` policies: the compiled grants, and forbids spread over the actions."""
    contract = folder / "contracts" / "desk"
    (contract / "schemas").mkdir(parents=True)
    (folder / "tools").mkdir()
    (folder / "remit.toml").write_text(PROJECT.format(database=database))
    (folder / "tools" / "desk.py").write_text(_TOOLS)
    actions = "\n".join(f"  - tool: {tool}\n    limits: {{per_run: 100000, per_hour: 100000000}}" for tool in tools())
    (contract / "contract.yaml").write_text(_CONTRACT.format(actions=actions))
    (contract / "policy.cedar").write_text(_policies(policies - ACTIONS))
    for name in ("in", "out"):
        (contract / "schemas" / f"{name}.json").write_text('{"type": "object"}')
    return folder


def _policies(count: int) -> str:
    made: list[str] = []
    for n in range(count):
        tool, condition = tools()[n % ACTIONS], _CONDITIONS[n % len(_CONDITIONS)].format(n=n)
        made.append(
            f'@id("rule-{n}") @reason("rule {n} says no")\n'
            f'forbid (principal, action == Action::"{tool}", resource)\nwhen {{ {condition} }};\n'
        )
    return "\n".join(made)


_WORDS = [
    "printer",
    "login",
    "laptop",
    "vpn",
    "mail",
    "phone",
    "badge",
    "server",
    "screen",
    "driver",
    "update",
    "slow",
    "broken",
    "office",
    "floor",
    "meeting",
    "account",
    "reset",
    "since",
    "yesterday",
    "again",
    "customer",
    "invoice",
    "scanner",
    "network",
    "cable",
    "dock",
    "battery",
    "keyboard",
]


class Arguments:
    """Arguments that never repeat, from a seed; one note in eight names an e-mail address to redact."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def next(self) -> dict[str, Any]:
        pick = self._random
        words = " ".join(pick.choices(_WORDS, k=16))
        contact = f" write to user{pick.randrange(10**6)}@corp.example" if pick.randrange(8) == 0 else ""
        return {
            "ticket": pick.randrange(10**9),
            "category": f"{pick.choice(_WORDS)}-{pick.randrange(1000)}",
            "priority": pick.choice(("low", "normal", "high")),
            "assignee": f"agent-{pick.randrange(10**6)}",
            "note": f"{words}, case {pick.randrange(10**9)}{contact}",
        }


@dataclass(frozen=True, kw_only=True)
class Caller:
    """One open run and its arguments."""

    run: ForeignRun | Run
    arguments: Arguments

    async def call(self) -> Outcome:
        outcome = await self.run.propose(TOOL, self.arguments.next())
        if not outcome.completed:
            raise RuntimeError(f"the benchmark's call did not complete: {outcome}")
        return outcome


@asynccontextmanager
async def durable(remit: Remit, runs: int, seed: int = 0) -> AsyncIterator[list[Caller]]:
    """Open runs whose calls are recorded in the project's database."""
    async with AsyncExitStack() as stack:
        callers: list[Caller] = []
        for number in range(runs):
            run = await stack.enter_async_context(remit.gate("desk").run(request(number)))
            callers.append(Caller(run=run, arguments=Arguments(seed + number)))
        yield callers


@asynccontextmanager
async def undurable(remit: Remit, runs: int, seed: int = 0) -> AsyncIterator[list[Caller]]:
    """Open runs whose calls pass the same gate over a journal that writes nothing."""
    vault = Vault(master_key(remit.project.folder / ".remit" / "keys").reveal())
    journal = Journal(remit.database, vault=vault, clock=remit.clock, writer=NullWriter())
    gate = Gate(journal, remit.verifier, Clients({}))
    async with AsyncExitStack() as stack:
        callers: list[Caller] = []
        problem_of = remit.program("desk").output_problem
        for number in range(runs):
            opened = await remit.engine.open("desk", request(number))
            _, folded = await stack.enter_async_context(remit.engine.session(opened))
            token = remit.issuer.issue(folded.state.authority.token_request(opened), remit.clock())
            run = Run(folded, gate=gate, journal=journal, token=lambda held=token: held, output_problem=problem_of)
            callers.append(Caller(run=run, arguments=Arguments(seed + number)))
        yield callers


def request(number: int) -> dict[str, Any]:
    """What the run of a number is opened for."""
    return {"id": number, "subject": f"request {number}", "body": "the printer on the third floor is broken again"}
