"""`remit-verify`: the command. It exits with 0 where the record is verified, 1 with findings, 2 where it can't be read."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from remit_verify.report import Checkpoint, Finding, Report, Tenant, Unreadable
from remit_verify.verify import Options, verify

_SHOWN = 50
VERIFIED, FOUND, UNREAD = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is its exit code."""
    given = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore
    try:
        since = {name: _read(name) for name in given.since}
        report = verify(
            given.source,
            keys=None if given.keys is None else Path(given.keys),
            since=since,
            options=Options(tenant=given.tenant, processes=given.processes),
        )
    except Unreadable as error:
        sys.stderr.write(f"{_plain(str(error))}\n")
        return UNREAD
    except KeyboardInterrupt:
        return UNREAD
    if given.json:
        json.dump(asdict(report) | {"verified": report.verified}, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        show(report, sys.stdout)
    return VERIFIED if report.verified else FOUND


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="remit-verify",
        description="Verify a record of Remit: its events, chains, tree and checkpoints.",
        epilog="Exits with 0 where the record is verified, 1 with findings, 2 where it can't be read.",
    )
    parser.add_argument(
        "source",
        nargs="?",
        default=".",
        help="a project's folder (default: this one), a SQLite file, a `postgresql://` address, an exported file, or -",
    )
    parser.add_argument(
        "--from",
        dest="since",
        metavar="FILE",
        action="append",
        default=[],
        help="checkpoints that you hold: one note or many; may be given more than once",
    )
    parser.add_argument("--keys", metavar="FOLDER", help="where `master.key` and `record.pub` lie")
    parser.add_argument("--tenant", help="verify this tenant alone")
    parser.add_argument("--processes", type=int, default=0, help="how many processes; default: what the record needs")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def _read(name: str) -> str:
    try:
        return Path(name).read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise Unreadable(f"`{name}` can't be read: {error.strerror}") from error


def show(report: Report, out: TextIO) -> None:
    """Print a report for people."""
    for finding in report.findings[:_SHOWN]:
        out.write(f"{_plain(_finding(finding))}\n")
    if report.found > _SHOWN:
        out.write(f"and {report.found - _SHOWN:,} more\n")
    if report.found:
        out.write("\n")
    verdict = "verified" if report.verified else f"NOT verified: {_count(report.found, 'finding')}"
    rate = report.events / report.seconds if report.seconds else 0
    out.write(f"{_plain(report.source)}: {verdict}\n")
    out.write(
        f"{_count(report.events, 'event')} in {_count(report.runs, 'run')}; {_count(report.bodies, 'body', 'bodies')}"
        f" opened, {report.erased:,} erased; {report.seconds:.1f} s, {rate:,.0f} events/s\n"
    )
    for tenant in report.tenants:
        for line in _tenant(tenant, good=report.verified):
            out.write(f"{_plain(line)}\n")
    out.write(_LIMITS_OWN_KEYS if report.own_keys else _LIMITS)


_LIMITS = (
    "not shown: that nothing was rewritten before these checkpoints by somebody who held database and keys;"
    " compare with one kept elsewhere (--from)\n"
)
_LIMITS_OWN_KEYS = (
    "not shown: whose keys these are, for the file itself names them; give those that you trust (--keys)\n"
)


def _tenant(tenant: Tenant, *, good: bool) -> list[str]:
    lines = [f"tenant {tenant.tenant}: tree of {tenant.size:,} leaves, root {tenant.root}"]
    best = tenant.given or tenant.checkpoint
    if best is None:
        return [*lines, f"  no checkpoint: {_count(tenant.events, 'event')} chained, none signed"]
    claim = "unaltered since" if good else "the last that holds is"
    lines.append(f"  {claim} {_checkpoint(best)}")
    if tenant.given is not None and tenant.checkpoint is not None and tenant.checkpoint.size > tenant.given.size:
        lines.append(f"  signed up to {_checkpoint(tenant.checkpoint)}")
    if tenant.behind:
        lines.append(f"  {_count(tenant.behind, 'event')} behind the last checkpoint: chained, not signed")
    return lines


def _checkpoint(found: Checkpoint) -> str:
    when = "" if found.at is None else f" of {_time(found.at)}{'' if found.at_signed else ', a time that is not signed'}"
    return f"checkpoint {found.size:,}{when} ({found.source})"


def _time(at: int) -> str:
    try:
        return f"{datetime.fromtimestamp(at / 1_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{at} µs"


def _finding(finding: Finding) -> str:
    who = [f"tenant {finding.tenant}"] if finding.tenant else []
    if finding.run:
        who.append(f"run {finding.run}")
    if finding.n is not None:
        who.append(f"event {finding.n}")
    about = f"{', '.join(who)}: " if who else ""
    return f"{finding.code}: {about}{finding.wrong} [{finding.where}]"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _plain(text: str) -> str:
    """A line without control characters: what stands in a damaged database must not steer a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text)
