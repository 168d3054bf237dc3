"""The demo as a user runs it: its own process, the live tracker, and the summary on its last line."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import unavailable


def remit(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-c", "from remit.cli.main import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished demo: its folder and its summary."""
    for module in ("roundup", "sklearn"):
        if importlib.util.find_spec(module) is None:
            unavailable(f"`{module}` is not installed; `pip install '.[demo]'`")
    folder = tmp_path_factory.mktemp("demo")
    ended = remit("demo", "--dir", str(folder / "desk"), "--json", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder / "desk", json.loads(ended.stdout.splitlines()[-1])


def test_every_kind_of_verdict_happens(demo: tuple[Path, dict[str, Any]]) -> None:
    _, summary = demo
    kinds = ("completed", "escalated", "held", "denied", "rejected_and_corrected", "stopped_by_limit")
    assert {kind: summary[kind] for kind in kinds if summary[kind] == 0} == {}
    assert summary["runs"] >= 120
    assert summary["denied_by"].keys() & {"account-not-from-the-ticket", "forbidden"}


def test_the_tracker_holds_what_the_journal_says(demo: tuple[Path, dict[str, Any]]) -> None:
    _, summary = demo
    assert summary["mismatches"] == 0


def test_every_attack_is_stopped(demo: tuple[Path, dict[str, Any]]) -> None:
    _, summary = demo
    assert summary["attacks"] >= 15
    assert summary["attacks_stopped"] == summary["attacks"]


def test_the_classifier_is_honest_and_useful(demo: tuple[Path, dict[str, Any]]) -> None:
    _, summary = demo
    assert summary["correct"] >= 0.7 * summary["runs"]
    assert summary["correct"] < summary["runs"]


def test_the_project_is_left_to_play_with(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = demo
    cases = json.loads(remit("cases", "--json", cwd=folder).stdout)
    approvals = [case for case in cases if case["kind"] == "approval"]
    assert len(approvals) >= summary["held_open"] > 0
    runs = json.loads(remit("runs", "--json", "--last", "500", cwd=folder).stdout)
    assert len(runs) == summary["runs"] + summary["attacks"]
    story = remit("show", approvals[0]["run"], cwd=folder)
    assert story.returncode == 0
    assert "tracker.read" in story.stdout
    assert "hold" in story.stdout
    refused = remit("approve", approvals[0]["case"], "--as", "sam", cwd=folder)
    assert refused.returncode == 1
    assert "it-lead" in refused.stderr


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine", encoding="utf-8")
    ended = remit("demo", "--dir", str(tmp_path), cwd=tmp_path)
    assert ended.returncode == 1
    assert "holds something else" in ended.stderr
    assert [found.name for found in tmp_path.iterdir()] == ["precious.txt"]
