"""What every example must be: without a problem, and deciding as its table of cases says."""

from __future__ import annotations

import shutil
from pathlib import Path

from remit import Remit
from remit.checking.check import check_project
from remit.checking.policy_tests import run_policy_tests

EXAMPLES = Path(__file__).parents[2] / "examples"


def copy_of(name: str, folder: Path) -> Path:
    """A copy of an example to run, as it lies in the project."""
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns(".remit", "__pycache__"))
    return folder


def problems_of(remit: Remit, contract: str) -> list[str]:
    """All that `remit check` and `remit policy test` say against it."""
    specs = {name: tool.spec for name, tool in remit.tools.items()}
    found = [f"{each.file}:{each.line}: {each.message}" for each in check_project(remit.project.folder, specs)]
    authority = remit.program(contract).authority
    table = remit.project.contract_folder(contract) / "policy_tests.yaml"
    granted = {name: tool.spec for name, tool in authority.tools.items()}
    results = run_policy_tests(table, authority.policy, granted)
    assert results
    return found + [f"{each.name}: {each.message}" for each in results if not each.passed]
