"""A receiver that others have written, Arize Phoenix, understands the traces and gives every body back."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from typing import Any

import pytest
from stories import TRACEPARENT, all_bodies, live_through, make_story_shop, reassembled

from parts import unavailable
from remit import Remit

pytestmark = pytest.mark.anyio

PROGRAM = Path(__file__).parents[2] / ".receiver" / "bin" / "phoenix"
START_S = 120


def free_port() -> int:
    with socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The address of a Phoenix server, started for these tests."""
    if not PROGRAM.exists():
        unavailable("no Arize Phoenix found; make a virtual environment `.receiver` and install requirements/receiver.lock into it")
    home = tmp_path_factory.mktemp("phoenix")
    with running(home, free_port()) as url:
        yield url


@contextmanager
def running(home: Path, port: int) -> Generator[str]:
    settings = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PHOENIX_WORKING_DIR": str(home),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with (home / "log").open("wb") as log:
        server = subprocess.Popen([PROGRAM, "serve"], env=settings, cwd=home, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(url, server), f"Phoenix does not start: see {home / 'log'}")
        yield url
    finally:
        server.terminate()
        server.wait(30)


def until(is_so: Any, otherwise: str) -> None:
    """Wait for a server that can't tell when it is ready."""
    end = time.monotonic() + START_S
    while not is_so():
        assert time.monotonic() < end, otherwise
        time.sleep(0.2)


def answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, "Phoenix has ended"
    try:
        return bool(get(f"{url}/v1/projects"))
    except OSError:
        return False


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


def spans_of(url: str, run: str) -> list[dict[str, Any]]:
    """What Phoenix has of a run, once it has written down all of it."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = get(f"{url}/v1/projects/default/spans?limit=100{cursor}")
        found += [span for span in page["data"] if span["attributes"].get("remit.run.id") == run]
        if not page["next_cursor"]:
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def test_a_receiver_of_others_has_the_run_and_every_body_of_it(
    phoenix: str, tmp_path: Path, database_url: str
) -> None:
    shop = make_story_shop(tmp_path / "shop", database_url, f'\n[record]\notlp = "{phoenix}"\n')
    async with Remit(shop.folder) as remit:
        told, _ = await live_through(remit)
        bodies = all_bodies(remit, told)

    def whole() -> bool:
        return sum(len(span["events"]) for span in spans_of(phoenix, told)) >= len(bodies)

    until(whole, "Phoenix did not take in the run")
    spans = spans_of(phoenix, told)
    events = (event["attributes"] for span in spans for event in span["events"])
    assert reassembled(events) == bodies
    assert {span["context"]["trace_id"] for span in spans} == {TRACEPARENT.split("-")[1]}
    kinds = {span["name"].split()[0]: span["span_kind"] for span in spans}
    assert (kinds["invoke_agent"], kinds["execute_tool"], kinds["chat"]) == ("AGENT", "TOOL", "LLM")
    (root,) = [span for span in spans if span["span_kind"] == "AGENT"]
    assert root["parent_id"] == TRACEPARENT.split("-")[2]
    assert {span["parent_id"] for span in spans if span is not root} == {root["context"]["span_id"]}
