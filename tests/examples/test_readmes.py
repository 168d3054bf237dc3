"""The commands that the examples' own pages give, in their order, as somebody types them."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from as_is import EXAMPLES, copy_of

from parts import unavailable


def remit(arguments: list[str], cwd: Path) -> str:
    command = [sys.executable, "-c", "from remit.cli.main import main; main()", *arguments]
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.stdout + ended.stderr


def commands(example: str) -> list[list[str]]:
    text = (EXAMPLES / example / "README.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("remit ")]


def filled(command: list[str], cwd: Path, done: str) -> list[str]:
    """The command with the ids that its reader would put in."""
    kind = {"approve": "approval", "answer": "question"}.get(command[0])
    if "CASE" in command:
        [case] = [each["case"] for each in json.loads(remit(["cases", "--json"], cwd)) if each["kind"] == kind]
        command[command.index("CASE")] = case
    if "RUN" in command:
        command[command.index("RUN")] = done
    return command


@pytest.mark.parametrize(
    ("example", "outcomes"),
    [
        ("refund-routing", ["completed", "held", "denied", "denied"]),
        ("invoice-triage", ["completed", "held", "held"]),
    ],
)
def test_every_command_of_the_page_works(tmp_path: Path, example: str, outcomes: list[str]) -> None:
    if example == "invoice-triage" and importlib.util.find_spec("sklearn") is None:
        unavailable("`sklearn` is not installed; `pip install '.[demo]'`")
    cwd = copy_of(example, tmp_path / example)
    said: list[str] = []
    done = ""
    for command in commands(example):
        printed = remit(filled(command, cwd, done), cwd)
        said.append(f"{command[0]}: {printed}")
        run = re.match(r"(run-[0-9a-f]+) (\w+)", printed)
        if command[0] == "run":
            assert run is not None, printed
            assert run[2] == outcomes.pop(0), printed
            done = done or run[1]
    assert outcomes == []
    story = "\n".join(said)
    assert "no problems" in story
    assert re.search(r"^undo: .*undone", story, re.M | re.S), story
