"""A project over a live tracker, with one contract whose workflow a test brings along."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from remit.connectors.roundup.server import RoundupServer

PROJECT = """
[project]
name = "desk"
tenant = "northwind"
region = "eu"
database = "{database}"
[tools]
modules = ["remit.connectors.roundup.tools"]
[connections.tracker]
url = "{url}"
user = "{user}"
secret = {{ env = "TRACKER_PASSWORD" }}
[queues.desk]
roles = ["lead"]
[people.lee]
name = "Lee"
roles = ["lead"]
"""


@dataclass(frozen=True, kw_only=True)
class DeskContract:
    """A contract over the tracker. `numbers`: what its request holds."""

    name: str
    text: str
    workflow: str
    numbers: tuple[str, ...] = ("issue", "original")
    record: str = ""
    """What `record.cedar` says, if there is one."""


def make_desk(folder: Path, database_url: str, tracker: RoundupServer, wanted: DeskContract) -> Path:
    """Write the project; the agent's password is taken from TRACKER_PASSWORD."""
    contract = folder / "contracts" / wanted.name
    contract.mkdir(parents=True)
    database = "sqlite:remit.db" if database_url.startswith("sqlite") else database_url
    user = tracker.accounts.agent.username
    (folder / "remit.toml").write_text(PROJECT.format(database=database, url=tracker.url, user=user))
    (contract / "contract.yaml").write_text(wanted.text)
    (contract / "policy.cedar").write_text("")
    (contract / "workflow.py").write_text(wanted.workflow)
    numbers = {name: {"type": "integer"} for name in wanted.numbers}
    (contract / "request.json").write_text(json.dumps({"type": "object", "properties": numbers}))
    (contract / "result.json").write_text('{"type": "object"}')
    if wanted.record:
        (folder / "record.cedar").write_text(wanted.record)
    return folder
