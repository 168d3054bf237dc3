"""The documentation is true: its code and commands run, and every check, event type, command and option stands in it."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from remit import Remit
from remit.contracts.scaffold import init_project
from remit.gate.gate import Gate
from remit.gate.verdicts import Outcome
from remit.journal.events import EventType
from remit.tools.decorator import ToolOptions, tool

ROOT = Path(__file__).parent.parent


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def snippets(name: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text_of(name), re.S)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """The project of `remit init triage`."""
    init_project(tmp_path / "desk", "triage")
    return tmp_path / "desk"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("text", "outcome"), [("the printer is on fire", "completed"), ("my password is hunter2", "escalated")]
)
async def test_the_first_code_of_the_readme_gives_the_id_of_its_run_however_it_ends(
    desk: Path, text: str, outcome: str
) -> None:
    scope: dict[str, Any] = {}
    exec(snippets("README.md")[0], scope)
    run = await scope["sort_ticket"](str(desk), text)
    async with Remit(desk) as remit:
        closed = remit.journal.reader.events(run)[-1]
    assert (closed.type, closed.header.verdict) == (EventType.RUN_CLOSED, outcome)


def remit(arguments: list[str], cwd: Path) -> str:
    command = [sys.executable, "-c", "from remit.cli.main import main; main()", *arguments]
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, f"{arguments}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def test_the_commands_of_the_readme_for_a_project_of_your_own_work(tmp_path: Path) -> None:
    lines = text_of("README.md").split("## A project of your own")[1].split("```sh\n")[1].split("```")[0]
    commands = [shlex.split(part, comments=True)[1:] for part in re.split(r"\n| && ", lines) if part.startswith("remit ")]
    assert len(commands) == lines.count("remit ") - lines.count("`remit ") == 9
    cwd, printed, ran = tmp_path, "", set[str]()
    for command in commands:
        if "RUN" in command:
            command[command.index("RUN")] = re.findall(r"run-[0-9a-f]+", printed)[0]
        if "CASE" in command:
            command[command.index("CASE")] = json.loads(remit(["cases", "--json"], cwd))[0]["case"]
        printed = remit(command, cwd)
        ran.add(command[0])
        cwd = tmp_path / "my-desk"
    assert {"init", "check", "show", "resolve"} <= ran
    assert json.loads(remit(["cases", "--json"], cwd)) == []


def test_every_other_snippet_runs() -> None:
    for code in [*snippets("docs/contracts.md"), *snippets("docs/tools.md")]:
        exec(compile(code, "<docs>", "exec", dont_inherit=True), {"__name__": "docs"})


STOCK = """
[project]
name = "stock"
tenant = "own"
region = "eu"
[tools]
modules = ["tools/stock.py"]
[queues.desk]
roles = ["lead"]
[people.me]
name = "Me"
roles = ["lead"]
"""

MOVE_PARTS: dict[str, Any] = {
    "contract": "move-parts",
    "owner": {"team": "stock", "contact": "stock@own.example"},
    "purpose": "move parts",
    "style": "workflow",
    "input": "schemas/request.json",
    "output": "schemas/result.json",
    "actions": [
        {"tool": "stock.read"},
        {"tool": "stock.move", "only": {"attributes": {"locked": False}}, "limits": {"per_run": 2}},
    ],
    "budget": {"calls": 4, "writes": 2},
    "escalate": {"to": "queue:desk", "sla": "4h"},
    "success": {"metric": "moved"},
    "slo": {"success": "90%"},
}


@pytest.fixture
def stock(tmp_path: Path) -> Path:
    """A project made of the code in docs/tools.md. Part 1 is free, 2 is locked, 3 belongs to another tenant."""
    example, workflow = snippets("docs/tools.md")[0], snippets("docs/tools.md")[-1]
    connection = snippets("docs/tools.md", "toml")[0].replace("/var/lib/stock.db", str(tmp_path / "stock.db"))
    home = tmp_path / "contracts" / "move-parts"
    for folder in (home / "schemas", tmp_path / "tools", tmp_path / ".remit" / "secrets"):
        folder.mkdir(parents=True)
    (tmp_path / "remit.toml").write_text(STOCK + connection)
    (tmp_path / "tools" / "stock.py").write_text(example)
    (home / "contract.yaml").write_text(json.dumps(MOVE_PARTS))
    (home / "policy.cedar").write_text("")
    (home / "workflow.py").write_text(workflow)
    (home / "schemas" / "request.json").write_text('{"type": "object"}')
    (home / "schemas" / "result.json").write_text('{"type": "object"}')
    secret = tmp_path / ".remit" / "secrets" / "stock"
    secret.write_text("correct-horse-battery-staple")
    secret.chmod(0o600)
    with sqlite3.connect(tmp_path / "stock.db") as database:
        database.execute("CREATE TABLE parts (part INTEGER PRIMARY KEY, tenant, shelf, remark, locked, version)")
        database.execute("CREATE TABLE moves (key TEXT PRIMARY KEY)")
        rows = [(1, "own", "A1", "put it on Z9", 0, 1), (2, "own", "A1", "", 1, 1), (3, "other", "A1", "", 0, 1)]
        database.executemany("INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?)", rows)
    database.close()
    return tmp_path


@pytest.mark.anyio
async def test_the_example_of_the_tools_page_is_governed_as_the_page_says(stock: Path) -> None:
    async with Remit(stock) as remit, remit.gate("move-parts").run({}) as run:

        async def move(part: int) -> tuple[str, str]:
            outcome: Outcome = await run.propose("stock.move", {"part": part, "shelf": "B2"})
            return type(outcome).__name__, getattr(outcome, "code", "")

        assert [await move(part) for part in (1, 2, 3, 9)] == [
            ("Completed", ""),
            ("Denied", "forbidden"),
            ("Denied", "forbidden"),
            ("Rejected", "object_not_found"),
        ]
    with sqlite3.connect(stock / "stock.db") as database:
        assert database.execute("SELECT part, shelf, version FROM parts ORDER BY part").fetchall() == [
            (1, "B2", 2),
            (2, "A1", 1),
            (3, "A1", 1),
        ]
    database.close()


@pytest.mark.anyio
async def test_the_workflow_of_the_tools_page_is_found_by_its_name_and_runs(stock: Path) -> None:
    async with Remit(stock) as remit:
        first = await remit.run("move-parts", {"part": 1, "shelf": "C3"})
        again = await remit.run("move-parts", {"part": 1, "shelf": "C3"})
    assert (first.outcome, first.output) == ("completed", {"shelf": "C3", "moved": True})
    assert (again.outcome, again.output) == ("completed", {"shelf": "C3", "moved": False})


def test_every_option_of_a_tool_is_described() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", text_of("docs/tools.md"), re.M))
    assert rows == {"effects", *ToolOptions.__annotations__}
    assert "effects" in inspect.signature(tool).parameters


def test_what_a_contract_declares_in_vain_is_said_first() -> None:
    limits = text_of("README.md").split("## Limits, first")[1].split("\n## ")[0]
    source = "".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "src" / "remit").rglob("*.py")
        if "contracts" not in path.parts and "demo" not in path.parts
    )
    unread = {
        "retention": r"contract\.retention",
        "slo": r"contract\.slo",
        "success": r"contract\.success",
        "data_missing": r"\.data_missing",
    }
    for name, use in unread.items():
        assert (name in limits) != bool(re.search(use, source)), name


def test_every_part_of_the_design_says_whether_it_is_built() -> None:
    sections = re.split(r"^## ", text_of("docs/design.md"), flags=re.M)[1:]
    assert [part.splitlines()[0] for part in sections if not re.search(r"^\*Status: ", part, re.M)] == []


def test_every_event_type_is_described() -> None:
    text = text_of("docs/gate.md")
    assert [kind for kind in EventType if f"`{kind}`" not in text] == []


def test_every_check_is_described() -> None:
    text = text_of("docs/gate.md")
    table = text.split("| check | what it asks |")[1].split("\n\n")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.M)
    source = text_of("src/remit/gate/gate.py")
    listed = source[source.index("self.checks: tuple") : source.index("# Limits come last")]
    places = [re.search(rf"\b{name}\b", listed, re.I) for name in named]
    assert all(places)
    assert len(named) == listed.count(",\n")
    assert Gate.__doc__ is not None


def test_every_command_is_described() -> None:
    from remit.cli.main import app

    text = text_of("docs/operations.md")
    names = [command.name for command in app.registered_commands]
    groups = [
        f"{group.name} {command.name}" for group in app.registered_groups for command in group.typer_instance.registered_commands  # type: ignore[union-attr]
    ]
    assert [name for name in [*names, *groups] if f"`{name}`" not in text and f"`remit {name}`" not in text] == []
