"""The command line explains itself, in lines that fit, and starts at once."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, cast

import pytest
import typer.main
from typer.testing import CliRunner

from remit.cli.main import app


def commands(group: Any, *path: str) -> list[tuple[str, ...]]:
    """Every command and group, by what one types."""
    found: list[tuple[str, ...]] = []
    for name, command in cast("dict[str, Any]", group.commands).items():
        found.append((*path, name))
        if hasattr(command, "commands"):
            found.extend(commands(command, *path, name))
    return found


EVERY = commands(typer.main.get_command(app))


def shown(*arguments: str) -> str:
    ended = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_every_command_has_a_whole_line_in_a_panel() -> None:
    text = shown("--help")
    # What may be given more than once is written so, and cuts nothing.
    assert "..." not in text.replace("[ARGS]...", "").replace("{FILE...}...", "").replace("FILE...", "")
    assert [panel for panel in ("Build:", "Run:", "Decide:", "Administer:") if panel not in text] == []
    assert "None:" not in text
    assert [path for path in EVERY if len(path) == 1 and f"\n  {path[0]} " not in text] == []


@pytest.mark.parametrize("path", [(), *EVERY])
def test_help_fits_80_columns_and_cuts_nothing(path: tuple[str, ...]) -> None:
    text = shown(*path, "--help")
    assert max(map(len, text.splitlines())) <= 80
    # What may be given more than once is written so, and cuts nothing.
    assert "..." not in text.replace("[ARGS]...", "").replace("{FILE...}...", "").replace("FILE...", "")
    assert "list[str]" not in text


@pytest.mark.parametrize("command", ["run", "show", "case", "approve", "deny", "resolve", "demo"])
def test_commands_that_take_something_have_examples(command: str) -> None:
    assert f"    remit {command} " in shown(command, "--help").split("Example")[1]


@pytest.mark.parametrize("command", ["runs", "show", "cases", "case"])
def test_the_unit_of_times_is_said(command: str) -> None:
    assert "microseconds since the epoch" in " ".join(shown(command, "--help").split())


@pytest.mark.parametrize("of", ["contract", "project"])
def test_schemas_are_for_people_too(of: str) -> None:
    text = shown("schema", of)
    assert json.loads(text)["$schema"]
    assert len(text.splitlines()) > 50


def test_help_loads_nothing_that_a_command_would_need() -> None:
    code = "import sys; from remit.cli.main import app; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"sqlalchemy", "cryptography", "cedarpy", "rich", "httpx", "remit.app", "sklearn"} & set(loaded) == set()
