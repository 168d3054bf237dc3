"""What an operator reads at night is true: its commands exist, and every code that can be met stands in its table."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from remit.cli.main import app
from remit.cli.runs import Outcome

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SOURCE = ROOT / "src" / "remit"
# What denies an agent's call is described in docs/gate.md, and a connector's own codes are quoted by the call's outcome.
OPERATORS = [
    *("app.py", "belonging.py", "programs.py", "terminal.py"),
    *("cases", "cli", "journal", "records", "releases", "runs", "storage", "identity", "memory"),
]


def files() -> list[Path]:
    found = [SOURCE / name for name in OPERATORS]
    return [file for path in found for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))]


def test_every_code_that_an_operator_can_meet_stands_on_the_page() -> None:
    codes = {code for file in files() for code in re.findall(r'\bcode(?:: str)? ?= ?"(\w+)"', file.read_text())}
    assert {"database_gone", "case_expired", "run_busy", "key_damaged", "file_exposed", "output_lost"} <= codes
    # Tokens and issuers from elsewhere are for whoever writes an agent.
    elsewhere = {"issuer_unreachable", "person_not_mapped", "scope_malformed"}
    missing = {code for code in codes - elsewhere if f"`{code}`" not in PAGE and not code.startswith("token_")}
    assert missing == set()


def test_every_state_of_a_run_that_is_not_over_stands_on_the_page() -> None:
    table = PAGE.split("## Runs that are not over")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.M)) == {
        state for state in Outcome if state in ("running", "ready", "held", "waiting", "stuck")
    }


def written(page: str) -> list[str]:
    """Every `remit …` in the page's shell blocks."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.S) for line in block.splitlines()]
    return [line for line in lines if line.startswith("remit ")]


@pytest.mark.parametrize("typed", written(PAGE))
def test_every_command_that_is_shown_can_be_typed(typed: str) -> None:
    words = shlex.split(typed, comments=True)[1:]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert [word for word in words if word.startswith("--") and word not in known] == []


def test_the_code_of_the_page_names_what_exists() -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    scope: dict[str, Any] = {"__name__": "docs"}
    exec(compile(code, "<docs>", "exec", dont_inherit=True), scope)
    assert callable(scope["start"])
    service = (ROOT / "examples" / "it-tickets" / "services" / "directory.py").read_text(encoding="utf-8")
    for option in ("--data", "--state", "--secret-file", "--port"):
        assert f'"{option}"' in service
