"""The figures as a table, and beside what they should be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

WITHOUT_DISK_MS = 0.30
SYNCS = 3
CALLS_PER_S = 3_000
START_S = 0.3
SHOWN_S = 0.2
EVENTS_PER_S = 5_000
VERIFIED_PER_S = 50_000
GROWN = 1.2
"""How much more an event may cost in a record that is ten times as large, or a hundred times."""


def middle(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds."""
    return {name: median(each[name] for each in rounds) for name in rounds[0]}


def reach(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What is asked for, what was measured, and whether it is met."""
    bare = found["without_disk"]["100"]["p50_ms"]
    made = [
        _goal("the gate without the disk, 100 policies, p50", "ms", bare, at_most=WITHOUT_DISK_MS),
        _durable("SQLite", found["sqlite"], bare),
        _goal("64 at once, SQLite", "calls/s", found["sqlite"]["concurrent"]["calls_per_s"], at_least=CALLS_PER_S),
    ]
    if "concurrent" in found["postgres"]:
        there = found["postgres"]
        made += [
            _durable("Postgres", there, bare),
            _goal("64 at once, Postgres", "calls/s", there["concurrent"]["calls_per_s"], at_least=CALLS_PER_S),
        ]
    made.append(_goal("the last 50 runs, read, checked and shown", "s", found["replay"]["shown_s"], at_most=SHOWN_S))
    made += record_reach(found["record"])
    made.append(_goal("start of the command line", "s", found["start"]["command_line_s"], at_most=START_S))
    return made


def record_reach(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What is asked of the record alone."""
    made: list[dict[str, Any]] = []
    for name, there in found.items():
        if "skipped" in there:
            continue
        whole, growth = [*there["variants"].values()][-1], there["growth"]
        made.append(_goal(f"the record, 64 writers, {name}", "events/s", whole["at_once"]["per_s"], at_least=EVENTS_PER_S))
        made.append(_goal(f"the record verified, {name}", "events/s", there["verified"]["per_s"], at_least=VERIFIED_PER_S))
        if len(growth) < 2:
            continue
        grown = f"an event at {growth[-1]['events']:,.0f} over one at {growth[0]['events']:,.0f}, {name}"
        made.append(_goal(grown, "times", growth[-1]["wall_us"] / growth[0]["wall_us"], at_most=GROWN))
    return made


def reach_table(goals: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What is asked for and whether it is met, a line each."""
    for goal in goals:
        mark = "met   " if goal["met"] else "missed"
        yield f"  {mark} {goal['name']:<46} {goal['value']:>9,.2f} {goal['unit']:<8} wanted {goal['wanted']}"


def _durable(name: str, there: dict[str, Any], bare_ms: float) -> dict[str, Any]:
    goal = SYNCS * there["fdatasync_ms"] + bare_ms
    return _goal(f"one durable call, {name}, p50", "ms", there["one_at_a_time"]["p50_ms"], at_most=goal)


def _goal(
    name: str, unit: str, value: float, *, at_most: float | None = None, at_least: float | None = None
) -> dict[str, Any]:
    met = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
    wanted = f"≤ {at_most:.2f}" if at_most is not None else f"≥ {at_least:,.0f}"
    return {"name": name, "unit": unit, "value": value, "wanted": wanted, "met": met}


def table(found: dict[str, Any]) -> str:
    """Everything, for people."""
    return "\n".join(_lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield "machine"
    yield from (f"  {name:<12}{value}" for name, value in found["machine"].items())
    sync = found["fdatasync"]
    yield "\nfdatasync of 4 KiB, p50"
    yield f"  growing file {sync['growing_ms']:.3f} ms, preallocated {sync['preallocated_ms']:.3f} ms"
    yield "\none call at a time                p50 ms    p95 ms    CPU ms"
    for policies, spread in found["without_disk"].items():
        yield _row(f"without the disk, {policies} policies", spread)
    for name in ("sqlite", "postgres"):
        if "one_at_a_time" in found[name]:
            yield _row(f"durable, {name}, 100 policies", found[name]["one_at_a_time"])
            yield f"    fdatasync beside it {found[name]['fdatasync_ms']:>14.3f}"
    yield "\n64 at once                        calls/s   CPU ms per call   rounds"
    for name in ("sqlite", "postgres"):
        yield _concurrent(name, found[name])
    yield "\nmemory of a call"
    yield f"  peak {found['memory']['peak_kib']:.1f} KiB, kept by its run {found['memory']['kept_kib']:.1f} KiB"
    yield "\nwhere the time of 64 at once goes (SQLite, under cProfile, per call)"
    yield "      own µs   total µs   calls"
    for row in found["profile"]:
        yield f"  {row['own_us']:>10.1f} {row['total_us']:>10.1f} {row['calls']:>7}  {row['where']}"
    shown = found["replay"]
    yield f"\nthe last {shown['runs']} runs ({shown['events']} events): read and checked {shown['read_s']:.3f} s, shown {shown['shown_s']:.3f} s"
    start = found["start"]
    yield f"\nstart of the command line {start['command_line_s']:.3f} s (Python alone {start['bare_python_s']:.3f} s)"
    yield from record_table(found["record"])
    yield "\nreach"
    yield from reach_table(found["reach"])


def _row(name: str, spread: dict[str, float]) -> str:
    return f"  {name:<30}{spread['p50_ms']:>8.3f}  {spread['p95_ms']:>8.3f}  {spread['cpu_ms']:>8.3f}"


def _concurrent(name: str, there: dict[str, Any]) -> str:
    if "skipped" in there:
        return f"  {name:<30}skipped: {there['skipped']}"
    rounds = " ".join(f"{each['calls_per_s']:,.0f}" for each in there["rounds"])
    middle_ = there["concurrent"]
    return f"  {name:<30}{middle_['calls_per_s']:>9,.0f}  {middle_['cpu_ms_per_call']:>15.3f}   {rounds}"


def record_table(found: dict[str, Any]) -> Iterator[str]:
    """The cost of keeping the record, part by part, and as it grows."""
    for name in ("sqlite", "postgres"):
        there = found[name]
        if "skipped" in there:
            yield f"\nthe record on {name}: skipped: {there['skipped']}"
            continue
        yield f"\nthe record on {name}                  events/s   wall µs    CPU µs    added    disk alone"
        for many in ("at_once", "alone"):
            yield "  64 writers" if many == "at_once" else "  one writer"
            bare = next(iter(there["variants"].values()))[many]
            for variant, each in there["variants"].items():
                yield _variant(variant, each[many], bare)
        yield "  a growing record     append µs   integrate µs   both µs   CPU µs   one alone µs   memory MiB"
        for step in there["growth"]:
            yield (
                f"    {step['events']:>12,.0f}  {step['append_us']:>12.0f}  {step['integrate_us']:>12.1f}  {step['wall_us']:>8.0f}"
                f"  {step['cpu_us']:>7.0f}  {step['alone_us']:>12.0f}  {step['memory_mib']:>10.0f}"
            )
        verified = there["verified"]
        yield (
            f"  verified: {verified['events']:,} events in {verified['seconds']:.2f} s, {verified['per_s']:,.0f} events/s"
            f" ({verified['processes']} processes)"
        )


def _variant(name: str, each: dict[str, float], bare: dict[str, float]) -> str:
    added = each["cpu_us"] - bare["cpu_us"]
    return (
        f"    {name:<34}{each['per_s']:>7,.0f}  {each['wall_us']:>8.1f}  {each['cpu_us']:>8.1f}  {added:>+7.1f}"
        f"  {each['floor_per_s']:>9,.0f}/s"
    )
