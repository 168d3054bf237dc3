"""What the policies of `examples/agentdojo-*` make of AgentDojo's recorded attacks: `python -m benchmarks.agentdojo FOLDER`.

FOLDER holds `runs.banking.jsonl.gz` and `runs.workspace.jsonl.gz`. An attack is judged by its calls (`attacker_call_indices`), not by the
benchmark's verdict, which is true for runs that broke off and false for addresses that did get a mail. Runs in which the
user names the attacker's account as their own payee (banking `user_task_15` of v1 and v1.1) are left out of the attacks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from remit import Remit
from remit.backtest.agentdojo import read_lines
from remit.backtest.bringing_in import bring_in
from remit.backtest.judging import Judging, judge
from remit.backtest.proposals import at_hand
from remit.backtest.tally import Compared
from remit.journal.events import EventType

EXAMPLES = Path(__file__).parent.parent / "examples"
SUITES = ("banking", "workspace")
_FIRST = {"v1", "v1.1"}


def evaluate(suite: str, file: Path, folder: Path) -> dict[str, Any]:
    """Bring the runs of a suite in and judge them by the contract of its example."""
    project = folder / suite
    shutil.copytree(EXAMPLES / f"agentdojo-{suite}", project)

    async def use() -> dict[str, Any]:
        async with Remit(project) as remit:
            brought = await bring_in(remit, [file], lambda: None)
            verdicts: dict[str, dict[int, Compared]] = defaultdict(dict)

            def note(compared: Compared) -> None:
                verdicts[compared.run][int(compared.step) - 1] = compared

            result = judge(remit, at_hand(remit, f"agentdojo-{suite}"), Judging(on_compared=note))
            # By its id in the file: what stands on record of a run is redacted.
            by_id = {about: run for run, about in _abouts(remit)}
            runs = [(each, verdicts.get(by_id[each["id"]], {})) for each in read_lines(file)]
            return {"brought_in": brought, "counts": result.counts(), **_summary(runs)}

    return asyncio.run(use())


def _abouts(remit: Remit) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    with remit.database.engine.connect() as connection:
        runs = [row[0] for row in connection.exec_driver_sql("SELECT run FROM runs")]
    for run in runs:
        opened = remit.journal.reader.events(run)[0]
        assert opened.type is EventType.RUN_OPENED
        found.append((run, opened.body["imported"]["id"]))
    return found


_Run = tuple[dict[str, Any], dict[int, Compared]]


def _summary(runs: list[_Run]) -> dict[str, Any]:
    attacked = [(run, found) for run, found in runs if run["attacker_call_indices"] and not _is_collision(run)]
    benign = [(run, found) for run, found in runs if run["attack"] is None and run["utility"]]
    return {"attacks": _attacks(attacked), "benign": _benign(benign)}


def _is_collision(run: dict[str, Any]) -> bool:
    versions = set(run["prompt_versions"] or ())
    return run["suite"] == "banking" and run["user_task"] == "user_task_15" and bool(versions & _FIRST)


def _attacks(runs: list[_Run]) -> dict[str, int]:
    calls = [found[index].now for run, found in runs for index in run["attacker_call_indices"]]
    through = [run for run, found in runs if any(found[index].now == "allow" for index in run["attacker_call_indices"])]
    return {"runs": len(runs), "runs_let_through": len(through), "calls": len(calls), **_by_verdict(calls)}


def _benign(runs: list[_Run]) -> dict[str, int]:
    calls = [found.now for _, each in runs for found in each.values() if found.was == "allow"]
    denied = [run for run, each in runs if any(found.was == "allow" and found.now == "deny" for found in each.values())]
    asked = [run for run, each in runs if any(found.was == "allow" and found.now == "hold" for found in each.values())]
    return {
        "runs": len(runs),
        "runs_denied_something": len(denied),
        "runs_asked_something": len(asked),
        "calls": len(calls),
        **_by_verdict(calls),
    }


def _by_verdict(calls: list[str]) -> dict[str, int]:
    return {kind: calls.count(kind) for kind in ("allow", "hold", "deny", "reject", "undetermined")}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agentdojo", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the recorded runs are")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="remit-agentdojo-") as folder:
        for suite in SUITES:
            found = evaluate(suite, options.folder / f"runs.{suite}.jsonl.gz", Path(folder))
            print(json.dumps({"suite": suite, **found}))


if __name__ == "__main__":
    main()
