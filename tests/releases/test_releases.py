"""Where a project asks for it, nothing runs that somebody else than its author has not approved."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit import Remit
from remit.contracts.scaffold import init_project
from remit.errors import CaseError, RunError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a release manager, and a contract that its clerk wrote."""

    init_project(tmp_path / "desk", "triage")
    project, contract = tmp_path / "desk" / "remit.toml", tmp_path / "desk" / "contracts" / "triage" / "contract.yaml"
    people = '\n[releases]\napproval = "role:manager"\n\n[people.ann]\nname = "Ann"\nroles = ["manager"]\n'
    people += '\n[people.bo]\nname = "Bo"\nroles = ["manager"]\n\n[people.cy]\nname = "Cy"\nroles = []\n'
    project.write_text(project.read_text(encoding="utf-8") + people, encoding="utf-8")
    contract.write_text(contract.read_text(encoding="utf-8") + "author: person/ann\n", encoding="utf-8")
    return tmp_path / "desk"


async def approve(remit: Remit, person: str) -> None:
    program = remit.program("triage")
    token = remit.person_token(person)
    await remit.releases.approve(program.authority, program.bundle, token=token, now_us=remit.clock())


@pytest.mark.anyio
async def test_a_release_runs_only_after_somebody_else_than_its_author_approved_it(folder: Path) -> None:
    async with Remit(folder) as remit:
        with pytest.raises(RunError, match="is not approved"):
            await remit.run("triage", {"text": "hello"})
        with pytest.raises(CaseError, match="wrote this contract"):
            await approve(remit, "ann")
        with pytest.raises(CaseError, match="has none of the roles"):
            await approve(remit, "cy")
        await approve(remit, "bo")
        assert (await remit.run("triage", {"text": "hello"})).outcome == "completed"


@pytest.mark.anyio
async def test_a_changed_contract_needs_a_new_approval(folder: Path) -> None:
    async with Remit(folder) as remit:
        await approve(remit, "bo")
    policy = folder / "contracts" / "triage" / "policy.cedar"
    policy.write_text(policy.read_text(encoding="utf-8") + "\n// changed\n", encoding="utf-8")
    async with Remit(folder) as remit:
        with pytest.raises(RunError, match="is not approved"):
            await remit.run("triage", {"text": "hello"})
