"""The demo as a user runs it: its own process, the live tracker, and the summary on its last line."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from parts import unavailable
from remit.demo.stage import example_folder, make_project, raised
from remit.errors import ConfigError

ROOT = Path(__file__).parents[2]


def needs_the_tracker() -> None:
    """Skip where the demo's own dependencies are not installed."""
    for module in ("roundup", "sklearn"):
        if importlib.util.find_spec(module) is None:
            unavailable(f"`{module}` is not installed; `pip install '.[demo]'`")


def remit(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-c", "from remit.cli.main import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


def made_by_make() -> list[str]:
    """What `make demo` runs, without the name of the program."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    recipe = next(line for line in lines if "/remit demo" in line)
    return shlex.split(recipe.split("/remit ", 1)[1])


@dataclass(frozen=True, kw_only=True)
class Demo:
    """A finished demo with its services still running: where it was run, what it said, and its summary."""

    cwd: Path
    said: str
    summary: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.cwd / "demo"

    def suggested(self, word: str) -> list[str]:
        """The arguments of the suggested command that holds `word`."""
        lines = [line.split("#")[0] for line in self.said.splitlines() if line.startswith("  remit ")]
        return shlex.split(next(line for line in lines if f" {word} " in line))[1:]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Generator[Demo, None, None]:
    """`make demo`, with `--keep`; the services are stopped with the command that it names."""
    needs_the_tracker()
    cwd = tmp_path_factory.mktemp("demo")
    arguments = made_by_make()
    assert arguments == ["demo", "--dir", "demo"]
    ended = remit(*arguments, "--keep", "--json", cwd=cwd)
    assert ended.returncode == 0, ended.stderr
    stop = re.findall(r"^  kill (\d+) (\d+)$", ended.stderr, re.M)[0]
    try:
        yield Demo(cwd=cwd, said=ended.stderr, summary=json.loads(ended.stdout.splitlines()[-1]))
    finally:
        for pid in stop:
            os.kill(int(pid), signal.SIGTERM)


def test_every_kind_of_verdict_happens(demo: Demo) -> None:
    summary = demo.summary
    kinds = ("completed", "escalated", "held", "denied", "rejected_and_corrected", "stopped_by_limit")
    assert {kind: summary[kind] for kind in kinds if summary[kind] == 0} == {}
    assert summary["runs"] >= 120
    assert summary["denied_by"].keys() & {"account-not-from-the-ticket", "forbidden"}
    assert [cause for cause in summary["denied_by"] if cause.startswith("autonomy:")] == []


def test_the_tracker_holds_what_the_journal_says(demo: Demo) -> None:
    summary = demo.summary
    assert summary["mismatches"] == 0


def test_every_attack_is_stopped(demo: Demo) -> None:
    summary = demo.summary
    assert summary["attacks"] >= 15
    assert summary["attacks_stopped"] == summary["attacks"]


def test_the_classifier_is_honest_and_useful(demo: Demo) -> None:
    summary = demo.summary
    assert summary["correct"] >= 0.7 * summary["runs"]
    assert summary["correct"] < summary["runs"]


def test_every_decision_of_the_demo_is_made_again_by_a_backtest(demo: Demo) -> None:
    judged = remit("backtest", "--json", cwd=demo.folder)
    assert judged.returncode == 0, judged.stderr
    found = json.loads(judged.stdout)
    assert found["decisions"] > 500
    assert found["reproduced"] == found["decisions"] == found["same"]


def test_the_project_is_left_to_play_with(demo: Demo) -> None:
    folder, summary = demo.folder, demo.summary
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


def test_the_counts_before_and_after_the_approvals_add_up(demo: Demo) -> None:
    summary = demo.summary
    said = re.sub(r"\s+", " ", demo.said)
    completed, unasked, approved = re.findall(r"of (\d+) completed, (\d+) asked nobody and (\d+) were approved", said)[0]
    assert int(completed) == summary["completed"] == int(unasked) + int(approved)
    held, answered = re.findall(r"of (\d+) held runs: (\d+) now completed", said)[0]
    assert int(answered) == int(approved) <= int(held) - summary["held_open"]


def test_no_two_messages_share_a_line_where_the_output_is_a_file(demo: Demo) -> None:
    assert [line for line in demo.said.splitlines() if "✓" in line[1:]] == []


def test_every_suggested_command_works(demo: Demo) -> None:
    held = remit(*demo.suggested("runs"), cwd=demo.cwd)
    assert demo.suggested("show")[1] in held.stdout
    assert "tracker.read" in remit(*demo.suggested("show"), cwd=demo.cwd).stdout
    assert remit(*demo.suggested("case"), cwd=demo.cwd).returncode == 0
    tested = remit(*demo.suggested("policy"), cwd=demo.cwd)
    assert tested.returncode == 0, tested.stdout
    assert ", 0 failed" in tested.stdout
    approved = remit(*demo.suggested("approve"), cwd=demo.cwd)
    assert approved.returncode == 0, approved.stderr
    assert "completed" in approved.stdout


def test_a_second_demo_says_how_to_stop_services_that_still_run(demo: Demo) -> None:
    ended = remit(*made_by_make(), cwd=demo.cwd)
    assert ended.returncode == 1
    pids = re.findall(r"^  kill (\d+ \d+)$", demo.said, re.M)[0]
    assert f"`kill {pids}`" in re.sub(r"\s+", " ", ended.stderr)
    assert (demo.folder / "remit.toml").is_file()


@pytest.mark.anyio
async def test_the_services_start_in_a_folder_relative_to_the_caller_and_again_in_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_the_tracker()
    monkeypatch.chdir(tmp_path)
    folder = Path("demo")
    for _ in range(2):
        make_project(folder, example_folder("it-tickets"))
        async with raised(folder, keep=False) as stage:
            assert stage.folder == tmp_path / "demo"
            url = re.findall(r'^url = "(.*:\d+)"$', (folder / "remit.toml").read_text(encoding="utf-8"), re.M)[0]
            async with httpx.AsyncClient(trust_env=False) as http:
                assert (await http.get(f"{url}/health")).status_code == 200
            with pytest.raises(ConfigError, match=f"kill {stage.tracker.pid} {stage.directory_pid}"):
                make_project(folder, example_folder("it-tickets"))


@pytest.mark.anyio
async def test_a_directory_that_does_not_start_is_reported_with_its_log(tmp_path: Path) -> None:
    needs_the_tracker()
    folder = tmp_path / "demo"
    make_project(folder, example_folder("it-tickets"))
    (folder / "data" / "directory.json").unlink()
    with pytest.raises(ConfigError) as raised_error:
        async with raised(folder, keep=False):
            pass
    message = raised_error.value.message
    assert f"`{folder}/.remit/directory.log`" in message
    assert message.endswith("directory: can't start: `data/directory.json`: No such file or directory")
    make_project(folder, example_folder("it-tickets"))


def test_the_table_of_the_export_example_passes(tmp_path: Path) -> None:
    if importlib.util.find_spec("sklearn") is None:
        unavailable("`sklearn` is not installed; `pip install '.[demo]'`")
    rows = [f"the {thing} of room {room} {fault},{team}" for room in range(30) for thing, fault, team in
            (("printer", "is out of paper", "hardware"), ("network", "is slow", "network"))]
    (tmp_path / "export.csv").write_text("\n".join(["text,team", *rows]), encoding="utf-8")
    columns = ["--column", "body=text", "--column", "team=team"]
    ended = remit("demo", "--dir", "own", "--tickets", "export.csv", *columns, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    share = re.findall(r"trained on (\d+) tickets \((\d+)%\)", ended.stderr)[0]
    assert round(int(share[0]) / len(rows) * 100) == int(share[1])
    assert "remit show run-" in ended.stderr
    tested = remit("policy", "test", "ticket-export", "-p", "own", cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine", encoding="utf-8")
    ended = remit("demo", "--dir", str(tmp_path), cwd=tmp_path)
    assert ended.returncode == 1
    assert "holds something else" in ended.stderr
    assert [found.name for found in tmp_path.iterdir()] == ["precious.txt"]
