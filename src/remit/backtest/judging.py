"""A backtest from the outside: the project's record judged by a proposal, refused where it can't be, and put on record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remit.backtest.backtest import Backtest, Result, Scope
from remit.backtest.proposals import recorded_terms
from remit.backtest.recorded import RecordReader
from remit.backtest.tally import Compared
from remit.backtest.terms import Terms
from remit.errors import RunError
from remit.journal.events import Draft, EventType

if TYPE_CHECKING:
    from remit.app import Remit

ACTOR = "remit"
"""Who stands on the register for what a command does in nobody's name."""


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How the record is judged: since when, how many of the newest runs, and who is told of each decision."""

    since_us: int = 0
    last_runs: int | None = None
    on_compared: Callable[[Compared], None] | None = None
    on_entry: Callable[[], None] | None = None


def record_of(remit: Remit) -> RecordReader:
    """The project's record, as a backtest reads it."""
    return RecordReader(remit.database, remit.vault, remit.tenant)


def judge(remit: Remit, terms: Terms, judging: Judging = Judging()) -> Result:
    """Decide the recorded calls of the terms' contract again. Reads, and nothing else.

    Raises `RunError` (code `not_reproduced`) where the recorded terms don't come to the recorded decisions.
    """
    record = record_of(remit)
    scope = Scope(contract=terms.name, since_us=judging.since_us)
    if judging.last_runs is not None:
        runs = record.last_runs(terms.name, judging.last_runs)
        since = max(judging.since_us, min(runs.values(), default=0))
        scope = Scope(contract=terms.name, since_us=since, runs=frozenset(runs))
    backtest = Backtest(
        scope, terms, terms_of=recorded_terms(remit), text=remit.redactor.text, on_compared=judging.on_compared
    )
    result = backtest.run(record, judging.on_entry)
    if result.failures:
        raise RunError(_refusal(result), code="not_reproduced")
    return result


async def judge_on_record(remit: Remit, terms: Terms, judging: Judging = Judging()) -> Result:
    """The same, and that it was done stands on the register, with its counts."""
    result = judge(remit, terms, judging)
    body = {
        "what": "backtest",
        "contract": terms.name,
        "policy": terms.policy,
        "release": terms.release,
        "since": judging.since_us,
        "last_runs": judging.last_runs,
        "counts": result.counts(),
    }
    refs = {"policy": terms.policy, **({"release": terms.release} if terms.release else {})}
    await remit.register.append(Draft(type=EventType.RUN_REPLAYED, actor=ACTOR, refs=refs, body=body))
    return result


def _refusal(result: Result) -> str:
    shown = "; ".join(f"{each.run} step {each.step}: {each.why}" for each in result.unreproduced)
    more = result.failures - len(result.unreproduced)
    rest = f"; and {more} more" if more > 0 else ""
    return (
        f"{result.failures} of {result.decisions} recorded decisions can't be made again under the terms that they were made "
        f"under, so nothing is judged: {shown}{rest}"
    )
