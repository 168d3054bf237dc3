"""Canaries: secrets of every kind go in wherever something comes in, and are then looked for wherever something is kept.

Each is a value of its own, so that one that is found says which way it came. They are looked for as they are and in every
spelling that a program may give them on its way.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from commands import remit, remit_json
from sqlalchemy import inspect, text

from model_server import Reply, Server, openai, serving
from project import SECRET, Shop, make_shop
from remit import Held, Remit
from remit.cases.cases import Decision
from remit.errors import RunError
from remit.records.holds import HoldScope

RANDOM = random.Random(7)


def letters(count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(RANDOM.choice(alphabet) for _ in range(count))


def digits(count: int) -> str:
    return letters(count, string.digits)


def iban() -> str:
    account = digits(18)
    check = 98 - int(account + "131400") % 97
    return f"DE{check:02}{account}"


def card() -> str:
    number = "4" + digits(14)
    total = sum((2 * int(d) - 9 * (int(d) > 4)) if i % 2 == 0 else int(d) for i, d in enumerate(number))
    return number + str(-total % 10)


def ssn() -> str:
    return f"{RANDOM.randint(100, 665)}-{RANDOM.randint(10, 99)}-{RANDOM.randint(1000, 9999)}"


def jwt() -> str:
    return ".".join(("eyJ" + letters(20), "eyJ" + letters(30), letters(43)))


# What is written around a secret, and how one is made.
KINDS: dict[str, tuple[str, Callable[[], str]]] = {
    "api key": ("use {} for it", lambda: "sk_live_" + letters(24)),
    "jwt": ("token {} expired", jwt),
    "password": ("my password is {}", lambda: letters(12)),
    "pem key": ("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", lambda: letters(64)),
    "iban": ("pay to {} please", iban),
    "card": ("card {}, 12/27", card),
    "email": ("write to {}", lambda: f"{letters(10)}@canary.example"),
    "phone": ("call {}", lambda: "+49151" + digits(8)),
    "national id": ("SSN {}", ssn),
    "password in an address": ("see https://app:{}@db.example/x", lambda: letters(14)),
    "credential": ("denied for {}", lambda: SECRET),
    "credential in a header": ("Authorization: Basic {}", lambda: base64.b64encode(f"remit:{SECRET}".encode()).decode()),
}


CREDENTIALS = ("credential", "credential in a header")
"""What ends a run whose agent has it: arguments with one of these lead no further."""


@dataclass(kw_only=True)
class Canaries:
    """What was planted: where and of which kind → the secret."""

    planted: dict[str, str] = field(default_factory=dict[str, str])
    errors: list[str] = field(default_factory=list[str])
    """What was said of requests that open no run."""

    def texts(self, place: str, *, without: tuple[str, ...] = ()) -> list[str]:
        """A text for each kind, with a secret of its own in it."""
        made: list[str] = []
        for kind, (around, make) in KINDS.items():
            if kind not in without:
                self.planted[f"{kind} in {place}"] = secret = make()
                made.append(around.format(secret))
        return made

    def groups(self, place: str) -> list[str]:
        """A few texts, short enough that nothing of them is cut off."""
        texts = self.texts(place)
        return ["; ".join(texts[at : at + 3]) for at in range(0, len(texts), 3)]

    def text(self, place: str) -> str:
        """All of them in one text."""
        return "; ".join(self.texts(place))


def spellings(secret: str) -> Iterator[tuple[str, str]]:
    """A secret as it may be found, and what that spelling is called."""
    data = secret.encode()
    yield "as it is", secret
    yield "hex", data.hex()
    yield "HEX", data.hex().upper()
    yield "JSON escapes", "".join(f"\\u{ord(char):04x}" for char in secret)
    for name, spelled in (("URL", quote(secret, "")), ("form", quote_plus(secret)), ("JSON", json.dumps(secret)[1:-1])):
        if spelled != secret:
            yield name, spelled
    for shift in range(3):
        # What its bytes become within a longer text, wherever it begins there.
        coded = base64.b64encode(b"\0" * shift + data + b"\0" * (-(shift + len(data)) % 3)).decode()
        inner = coded[(shift * 8 + 5) // 6 : (shift + len(data)) * 8 // 6]
        yield f"base64+{shift}", inner
        yield f"base64url+{shift}", inner.replace("+", "-").replace("/", "_")


def test_a_spelling_is_found_where_it_stands() -> None:
    """The search itself finds what there is."""
    for secret in ("sk_live_abc>>>???", "+4915112345678", "ann@canary.example"):
        for before in ("", "x", "xy", "xyz"):
            coded = base64.b64encode(f"{before}{secret}tail".encode()).decode()
            assert any(spelled in coded for name, spelled in spellings(secret) if name.startswith("base64+"))
            coded = base64.urlsafe_b64encode(f"{before}{secret}tail".encode()).decode()
            assert any(spelled in coded for name, spelled in spellings(secret) if name.startswith("base64url+"))


TOOLS = '''
import json
from pathlib import Path

import httpx
from msgspec import Struct

from remit import Effect, Idempotency, Resource, ToolContext, tool
from remit.errors import OutcomeUnknown, ToolFailed

HOME = Path(__file__).parent.parent
PLAN = json.loads((HOME / "plan.json").read_text())


class File(Struct, frozen=True):
    holder: str
    notes: list[str]
    more: dict[str, int]


@tool("canary.read", effects={Effect.READ}, field_classes={"result.holder": "personal"}, untrusted=("notes",))
async def read(what: str) -> File:
    """What stands in the system of record."""
    return File(**PLAN[what])


@tool("canary.fail", effects={Effect.WRITE}, idempotency=Idempotency.SAFE)
async def fail(ctx: ToolContext, how: str, at: int) -> bool:
    """Fail in some way, and say more than one should."""
    said = PLAN[how][at]
    if how == "tool error":
        raise ToolFailed(said, code="refused")
    if how == "tool unknown":
        raise OutcomeUnknown(said)
    if how == "exception":
        raise RuntimeError(said)
    if how == "exception chain":
        try:
            raise KeyError(said)
        except KeyError as error:
            raise ValueError("it broke") from error
    if how == "http url":
        request = httpx.Request("GET", "https://api.example/v1/find", params={"q": said})
        httpx.Response(500, request=request).raise_for_status()
    if how == "http header":
        request = httpx.Request("GET", "https://api.example/v1/find", headers={"x-asked": said.encode().replace(b"\\n", b" ")})
        raise RuntimeError(f"refused with {request.headers.raw}")
    if how == "file name":
        open(f"/nonexistent/{said}/x.pdf")
    return True


async def find(ctx, args):
    return Resource(kind="File", id="7", tenant=ctx.tenant, region="eu", attributes={"note": PLAN["attribute"][args["at"]]})


@tool(
    "canary.touch",
    effects={Effect.WRITE},
    idempotency=Idempotency.SAFE,
    resource_kind="File",
    resource_attributes={"note": "String"},
    locate=find,
)
async def touch(ctx: ToolContext, at: int, note: str, more: dict[str, str]) -> dict[str, str]:
    """Touch a file."""
    return {"touched": note, **more}
'''

MODEL = """
[models.sorter]
kind = "llm"
model = "openai:gpt-4o-mini"
base_url = "{url}/v1"
secret = {{ file = "model.secret" }}
"""

WORKFLOW = """
async def flow(run, request):
    if request["do"] == "break":
        raise RuntimeError(request["text"])
    if request["do"] == "escalate":
        await run.escalate(request["text"], draft={"note": request["text"], request["text"]: 1})
    if request["do"] == "answer":
        return {"said": request["text"], request["text"]: True}
    return [request["text"]]
"""

POLICY = """
@id("ask") @hold("role:care-lead") @reason("a person looks at notes")
forbid (principal, action == Action::"canary.touch", resource)
when { context.args.note like "*ask*" && resource.note != "" };
"""

FAILURES = ("tool error", "tool unknown", "exception", "exception chain", "http url", "http header", "file name")


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


@pytest.fixture
def shop(tmp_path: Path, database_url: str, canaries: Canaries, server: Server) -> Shop:
    shop = make_shop(tmp_path / "shop", database_url)
    plan: dict[str, Any] = {how: canaries.groups(how) for how in FAILURES}
    plan["attribute"] = [canaries.text(f"resource attribute {at}") for at in range(3)]
    canaries.planted["a classed field"] = holder = f"Zora {letters(9)}"
    plan["result"] = {"holder": holder, "notes": [canaries.text("tool result")], "more": {canaries.text("key of a result"): 1}}
    plan["more"] = {"holder": "nobody", "notes": [f"{holder} called", f"https://x.example/?q={quote_plus(holder)}"], "more": {}}
    plan["tool error"].append(f"no file of {holder}")
    plan["exception"].append(f"no file of {holder}")
    (shop.folder / "tools" / "canaries.py").write_text(TOOLS)
    (shop.folder / "plan.json").write_text(json.dumps(plan))
    toml = shop.folder / "remit.toml"
    modules = toml.read_text().replace('modules = ["tools/shop.py"]', 'modules = ["tools/shop.py", "tools/canaries.py"]')
    toml.write_text(modules + MODEL.format(url=server.url))
    (shop.folder / "model.secret").write_text("sk-live-0123456789abcdef0123456789")
    (shop.folder / "model.secret").chmod(0o600)
    actions: list[dict[str, Any]] = [
        {"tool": "canary.read"},
        {"tool": "canary.fail", "limits": {"per_run": 500}},
        {"tool": "canary.touch", "limits": {"per_run": 500}},
    ]
    budget = {"calls": 500, "writes": 500, "time": "10m", "spend": "9.00 USD"}
    binding = {"use": "sorter", "prompt": "sort.md", "timeout": "5s", "spend_per_call": "0.01 USD"}
    shop.contract("canaries", actions, policy=POLICY, budget=budget, attempts=10, models={"sorter": binding})
    prompts = shop.folder / "contracts" / "canaries" / "prompts"
    prompts.mkdir()
    (prompts / "sort.md").write_text("Sort this: {text}\n")
    (prompts / "sort.answer.json").write_text('{"category": ["access", "network"]}')
    shop.contract("flow", actions, workflow=WORKFLOW)
    return shop


async def plant(shop: Shop, canaries: Canaries, server: Server) -> None:
    """Bring secrets in by every way there is."""
    async with Remit(shop.folder) as opened:
        runs = [await _calls(opened, shop, canaries), await _held(opened, canaries)]
        await _model(opened, canaries, server)
        for do in ("break", "escalate", "answer", "nonsense"):
            request = {"do": do, "text": canaries.text(f"request ({do})")}
            runs.append((await opened.run("flow", _without_credential(request))).run)
        await _people(opened, canaries, runs)
        for refused in canaries.texts("refused request"):
            with pytest.raises(RunError) as error:
                await opened.engine.open("canaries", {"order": refused})
            canaries.errors.append(f"{error.value} {error.value.__cause__}")


def _without_credential(request: dict[str, str]) -> dict[str, str]:
    """A request with a credential of the gateway in it opens no run at all."""
    basic = KINDS["credential in a header"][1]()
    texts = [text.replace(SECRET, "nothing").replace(basic, "nothing") for pair in request.items() for text in pair]
    return dict(zip(texts[::2], texts[1::2], strict=True))


async def _calls(opened: Remit, shop: Shop, canaries: Canaries) -> str:
    plan = json.loads((shop.folder / "plan.json").read_text())
    request = _without_credential({"text": canaries.text("request"), canaries.text("key of a request"): "x"})
    key = canaries.text("request key")
    async with opened.gate("canaries").run(request, request_key=key) as run:
        for what in ("result", "more"):
            await run.propose("canary.read", {"what": what})
        for how in FAILURES:
            for at in range(len(plan[how])):
                await run.propose("canary.fail", {"how": how, "at": at})
        for at, note in enumerate(canaries.texts("argument", without=CREDENTIALS)):
            await run.propose("canary.touch", {"at": at % 3, "note": note, "more": {note: note}})
        for name in canaries.texts("tool name"):
            await run.propose(name, {"what": name})
        for argument in canaries.texts("key of an argument", without=CREDENTIALS)[:8]:
            await run.propose("canary.read", {argument: 1, "what": [argument]})
        await run.propose("canary.touch", {"at": 0, "note": f"{plan['result']['holder']} called", "more": {}})
        await run.escalate(canaries.text("case reason"), draft={"to": canaries.text("draft")})
    return run.id


async def _model(opened: Remit, canaries: Canaries, server: Server) -> None:
    """A model that says secrets instead of labels, and a server of it that fails with them."""
    label = {"label": canaries.text("label of a model"), "confidence_per_mille": 900}
    async with opened.gate("canaries").run({}) as run:
        for reply in (
            openai(canaries.text("model output")),
            openai({"category": label}),
            Reply(400, json.dumps({"error": {"message": canaries.text("error of a model's server")}})),
            Reply(500, canaries.text("failure of a model's server")),
        ):
            server.replies = [reply]
            written = "; ".join(canaries.texts(f"prompt {reply.status}", without=CREDENTIALS))
            await run.propose("model:sorter", {"text": written})


async def _held(opened: Remit, canaries: Canaries) -> str:
    """Calls that a person is asked about, who answers with secrets as well."""
    token = opened.person_token("lee")
    async with opened.gate("canaries").run({}) as run:
        await run.propose("canary.read", {"what": "result"})
        holder = canaries.planted["a classed field"]
        for at in range(3):
            note = f"ask {at}: " + "; ".join(canaries.texts(f"held argument {at}", without=CREDENTIALS))
            held = await run.propose("canary.touch", {"at": at, "note": note, "more": {}})
            assert isinstance(held, Held)
            reason = f"{canaries.text(f'approval reason {at}')}; {holder} agrees"
            decision = Decision.APPROVED if at % 2 else Decision.DENIED
            await opened.cases.decide(held.case, decision, token=token, reason=reason)
            await run.propose("canary.touch", {"at": at, "note": note, "more": {}})
    return run.id


async def _people(opened: Remit, canaries: Canaries, runs: list[str]) -> None:
    """What people say when they settle cases, end runs, hold, look and erase."""
    token, holder = opened.person_token("lee"), canaries.planted["a classed field"]
    for case in opened.cases.list("shop"):
        if case.kind != "approval":
            await opened.cases.decide(case.case, Decision.RESOLVED, token=token, reason=canaries.text(case.case))
    run = await opened.engine.open("canaries", {})
    await opened.close_run(run, token=token, reason=canaries.text("closing reason"))
    asked = [case for case in opened.cases.list("shop", status=None) if case.run == runs[1]][:1]
    for case in asked:
        await opened.cases.reveal(case.case, token=token)
    await opened.administration.disable("agent/shop/flow", token=token, reason=canaries.text("disabling reason"))
    for at, run in enumerate(runs):
        # Whoever is named in a run whose record has the name in a declared field.
        who = holder if at < 2 else "somebody"
        await opened.reveals.reveal(run, token=token, reason=f"{canaries.text(f'reveal of run {at}')}; {who} asks")
    hold = await opened.holds.place(HoldScope.RUN, runs[0], token=token, reason=canaries.text("hold reason"))
    canaries.planted["a subject"] = subject = KINDS["email"][1]()
    await opened.holds.place(HoldScope.SUBJECT, subject, token=token, reason=f"all of {subject}")
    await opened.holds.lift(hold.hold, token=token, reason=canaries.text("lift reason"))
    erased = opened.archive.run(runs[-1])
    await opened.erasure.erase([erased], token=token, reason=canaries.text("erase reason"))
    await opened.sequencer.integrate(publish=True)


def kept(shop: Shop) -> Iterator[tuple[str, bytes]]:
    """Everything that is kept and shown, by what it is called."""
    for path in sorted(shop.folder.rglob("*")):
        inside = path.relative_to(shop.folder)
        if path.is_file() and (inside.parts[0] == ".remit" or path.name.startswith("remit.db")) and "keys" not in inside.parts:
            yield str(inside), path.read_bytes()
    yield from asyncio.run(_opened(shop))
    for command in (["runs", "--last", "99"], ["cases", "--status", "all"], ["hold", "list"], ["principal", "list"], ["retention", "--dry-run"]):
        yield " ".join(command), remit(shop, *command).encode()
        yield f"{' '.join(command)} --json", remit(shop, *command, "--json").encode()
    for run in remit_json(shop, "runs", "--last", "99"):
        yield f"show {run['run']}", remit(shop, "show", run["run"]).encode()
        yield f"show {run['run']} --json", remit(shop, "show", run["run"], "--json").encode()
    for case in remit_json(shop, "cases", "--status", "all"):
        yield f"case {case['case']}", remit(shop, "case", case["case"]).encode()
        yield f"case {case['case']} --json", remit(shop, "case", case["case"], "--json").encode()


async def _opened(shop: Shop) -> list[tuple[str, bytes]]:
    """Every row of every table, and what every event says once it is decrypted."""
    found: list[tuple[str, bytes]] = []
    async with Remit(shop.folder) as opened:
        tables = inspect(opened.database.engine).get_table_names()
        with opened.database.engine.connect() as connection:
            for table in tables:
                for row in connection.execute(text(f"SELECT * FROM {table}")):
                    cells = [cell if isinstance(cell, bytes) else str(cell).encode() for cell in row]
                    found.append((f"table {table}", b"\n".join(cells)))
        runs = [run.run for run in opened.archive.runs()]
        for run in (*runs, opened.register.name):
            for event in opened.journal.reader.events(run):
                body = json.dumps(event.body, ensure_ascii=False)
                found.append((f"event {event.header.n} of {run} ({event.header.type})", body.encode()))
    return found


def escaped(canaries: Canaries, shop: Shop, logged: str) -> dict[str, set[str]]:
    """Which secrets were found, in which spelling, and where."""
    everything = {spelled: f"{name}, {how}" for name, secret in canaries.planted.items() for how, spelled in spellings(secret)}
    found: dict[str, set[str]] = {}
    for place, data in (*kept(shop), ("log", logged.encode()), ("errors", "\n".join(canaries.errors).encode())):
        decoded = data.decode(errors="replace")
        for spelled, name in everything.items():
            if spelled in decoded:
                found.setdefault(name, set()).add(place)
    return found


def test_no_secret_that_came_in_is_kept_or_shown_anywhere(
    shop: Shop, canaries: Canaries, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.run(plant(shop, canaries, server))
    assert len(canaries.planted) > 300
    found = escaped(canaries, shop, caplog.text)
    assert found == {}
