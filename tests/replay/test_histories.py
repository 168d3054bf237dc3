"""Recordings of old versions come out the same under today's Remit; one diverges, deliberately and in just this way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import recordings
from remit import Remit
from remit.replay.recorded import Choice
from remit.replay.replays import WhichCode
from remit.replay.report import Replayed, ReplayReport

REPLAYED = pytest.mark.parametrize("name", recordings.names())


def replay(name: str, tmp_path: Path, database_url: str, level: int, code: WhichCode = "present") -> ReplayReport:
    run = recordings.load(name, tmp_path / "project", database_url)

    async def main() -> ReplayReport:
        async with Remit(tmp_path / "project") as remit:
            return await remit.replays.replay(Choice(run=run), level, code)

    return asyncio.run(main())


def the_one(report: ReplayReport) -> Replayed:
    (found,) = report.runs
    return found


def test_there_is_a_history_of_every_way_that_runs_go() -> None:
    assert set(recordings.names()) >= {
        "completed",
        "rejected-then-retried",
        "held-then-approved",
        "denied",
        "escalated",
        "crashed-and-resumed",
        "unknown-reconciled",
        "diverging",
    }


@REPLAYED
def test_the_chain_of_every_history_holds(tmp_path: Path, database_url: str, name: str) -> None:
    found = the_one(replay(name, tmp_path, database_url, 0))
    assert (found.result, found.why, found.recorded.outcome) == ("verified", "", recordings.about(name)["outcome"])


@REPLAYED
def test_every_history_comes_out_as_it_should(tmp_path: Path, database_url: str, name: str) -> None:
    found = the_one(replay(name, tmp_path, database_url, 1))
    assert (found.result, found.why) == (recordings.about(name)["result"], "")


@REPLAYED
def test_every_history_comes_out_the_same_under_its_own_code(tmp_path: Path, database_url: str, name: str) -> None:
    found = the_one(replay(name, tmp_path, database_url, 1, "recorded"))
    assert (found.result, found.why, found.divergence) == ("identical", "", None)


@REPLAYED
def test_no_decision_of_a_history_comes_out_otherwise(tmp_path: Path, database_url: str, name: str) -> None:
    found = the_one(replay(name, tmp_path, database_url, 2))
    assert [one for one in found.decisions if one.reproduced is False] == []
    assert found.result in ("identical", "undetermined")


def test_the_diverging_history_diverges_where_its_code_pays_another_amount(tmp_path: Path, database_url: str) -> None:
    report = replay("diverging", tmp_path, database_url, 1)
    found = the_one(report)
    assert found.divergence is not None
    arguments = {"order": 4, "account": "DE0933"}
    assert found.divergence.step == "6"
    assert found.divergence.expected.what == found.divergence.came.what == "a call of `payments.refund`"
    assert found.divergence.expected.values == {**arguments, "amount": {"amount": "5.00", "currency": "EUR"}}
    assert found.divergence.came.values == {**arguments, "amount": {"amount": "7.50", "currency": "EUR"}}
    assert found.divergence.differing == ("amount.amount",)
    assert found.cause.startswith("changed since: code `workflow.py`")
    assert {name: report.counts[name] for name in ("runs", "identical", "diverged", "undetermined")} == {
        "runs": 1,
        "identical": 0,
        "diverged": 1,
        "undetermined": 0,
    }
