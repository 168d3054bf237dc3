"""Runs that are submitted, worked on and answered from the command line, and the one process that serves a project."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from commands import remit

from project import Shop, make_shop, write_action

ASKING = '''
async def asking(run, request):
    said = await run.ask("what shall we write?", of="role:care-lead", draft={"note": "thank you", "amount": 7})
    return {"said": said, "done": await run.call("put.safe", value=said["amount"])}
'''
PLAIN = '''
async def plain(run, request):
    return {"said": await run.ask("which carrier?", of="role:care-lead")}
'''
DOING = '''
async def doing(run, request):
    return {"done": await run.call("put.safe", value=request["order"])}
'''
START = "from remit.cli.main import main; main()"


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    for name, workflow in (("asking", ASKING), ("plain", PLAIN), ("doing", DOING)):
        made.contract(name, [write_action("put.safe")], workflow=workflow)
    return made


def held(shop: Shop, contract: str) -> tuple[str, str]:
    """A run that waits for an answer, and its case."""
    result = json.loads(remit(shop, "run", contract, "{}", "--json"))
    assert result["outcome"] == "held"
    return result["run"], result["case"]


def shown(shop: Shop, run: str) -> dict[str, Any]:
    """What the run has come to."""
    events = json.loads(remit(shop, "show", run, "--json"))
    assert events[-1]["type"] == "run.closed"
    return events[-1]["content"]["output"]


def test_a_submitted_run_waits_for_a_worker_and_is_driven_by_it(shop: Shop) -> None:
    run = json.loads(remit(shop, "submit", "doing", '{"order": 5}', "--priority", "high", "--json"))["run"]
    assert shop.ledger() == []
    assert f"{run} completed" in remit(shop, "worker", "--once")
    assert len(shop.ledger()) == 1
    assert "no run waits" in remit(shop, "worker", "--once")


def test_an_answer_is_given_as_text_or_json_or_as_the_draft_stands(shop: Shop) -> None:
    run, case = held(shop, "plain")
    page = remit(shop, "case", case)
    assert "which carrier?" in page
    assert f"remit answer {case} ANSWER" in page
    assert "answered by person/lee" in remit(shop, "answer", case, "the blue one", "--as", "lee")
    remit(shop, "worker", "--once")
    assert shown(shop, run) == {"said": "the blue one"}

    run, case = held(shop, "asking")
    remit(shop, "answer", case, '{"note": "thanks", "amount": 8}', "--as", "lee")
    remit(shop, "worker", "--once")
    assert shown(shop, run) == {"said": {"note": "thanks", "amount": 8}, "done": 8}
    story = remit(shop, "show", run)
    assert "changed amount, note of the draft" in story

    run, case = held(shop, "asking")
    remit(shop, "answer", case, "--draft", "--as", "lee")
    remit(shop, "worker", "--once")
    assert shown(shop, run)["said"] == {"note": "thank you", "amount": 7}


def test_the_draft_is_edited_in_the_editor_that_the_person_uses(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    run, case = held(shop, "asking")
    editor = shop.folder / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/7/9/" "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.setenv("VISUAL", str(editor))
    remit(shop, "answer", case, "--edit", "--as", "lee")
    remit(shop, "worker", "--once")
    assert shown(shop, run)["said"]["amount"] == 9


@pytest.mark.parametrize("wrong", [(), ("x", "--draft"), ("--draft", "--edit")])
def test_one_answer_is_asked_for(shop: Shop, wrong: tuple[str, ...]) -> None:
    _, case = held(shop, "asking")
    assert "give an ANSWER" in remit(shop, "answer", case, *wrong, "--as", "lee", code=2)


def test_what_is_asked_for_is_named_where_the_answer_does_not_meet_it(shop: Shop) -> None:
    _, case = held(shop, "plain")
    assert "answer_invalid" in remit(shop, "answer", case, "", "--as", "lee", code=1)
    assert "brings no draft" in remit(shop, "answer", case, "--draft", "--as", "lee", code=1)


def test_one_process_works_and_serves_and_says_that_it_is_well(shop: Shop) -> None:
    run = json.loads(remit(shop, "submit", "doing", '{"order": 5}', "--json"))["run"]
    port = 20_000 + os.getpid() % 20_000
    arguments = [sys.executable, "-c", START, "serve", "--listen", f"127.0.0.1:{port}", "--project", str(shop.folder)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            assert f"http://127.0.0.1:{port}/checkpoint" in process.stdout.readline()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
                assert answer.read() == b"ok\n"
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/elsewhere", timeout=10)
            refused.value.close()
            until = time.monotonic() + 30
            while "completed" not in remit(shop, "runs") and time.monotonic() < until:
                pass
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
    assert shown(shop, run) == {"done": 5}
