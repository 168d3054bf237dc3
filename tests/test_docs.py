"""The documentation is true: its code runs, and every check, event type and command stands in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from remit.contracts.scaffold import init_project
from remit.gate.gate import Gate
from remit.journal.events import EventType

ROOT = Path(__file__).parent.parent
_PYTHON = re.compile(r"```python\n(.*?)```", re.S)


def snippets(name: str) -> list[str]:
    return _PYTHON.findall((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.anyio
async def test_the_first_code_of_the_readme_runs(tmp_path: Path) -> None:
    init_project(tmp_path / "desk", "triage")
    scope: dict[str, Any] = {}
    exec(snippets("README.md")[0], scope)
    run = await scope["sort_ticket"](str(tmp_path / "desk"), "the printer is on fire")
    assert run.startswith("run-")


def test_every_other_snippet_runs() -> None:
    for code in snippets("docs/contracts.md"):
        exec(code, {})


def test_every_event_type_is_described() -> None:
    text = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    assert [kind for kind in EventType if f"`{kind}`" not in text] == []


def test_every_check_is_described() -> None:
    text = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)` \|", text, re.M)[:9]
    source = (ROOT / "src" / "remit" / "gate" / "gate.py").read_text(encoding="utf-8")
    listed = source[source.index("self.checks: tuple") : source.index("# Limits come last")]
    places = [re.search(rf"\b{name}\b", listed, re.I) for name in named]
    assert all(places)
    assert len(named) == listed.count(",\n")
    assert Gate.__doc__ is not None


def test_every_command_is_described() -> None:
    from remit.cli.main import app

    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    names = [command.name for command in app.registered_commands]
    groups = [
        f"{group.name} {command.name}" for group in app.registered_groups for command in group.typer_instance.registered_commands  # type: ignore[union-attr]
    ]
    assert [name for name in [*names, *groups] if f"`{name}`" not in text and f"`remit {name}`" not in text] == []


