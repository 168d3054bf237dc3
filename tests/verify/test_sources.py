"""What can be verified, how it is asked for, and what is said where it can't be read."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from record_writer import POSTGRES, RecordWriter, fill, sqlite_record

from remit_verify import Keys, Options, Report, Unreadable, verify
from remit_verify.command import main, show


@pytest.fixture
def writer(tmp_path: Path) -> RecordWriter:
    made = sqlite_record(tmp_path / "project")
    fill(made, runs=24, events=9, every=100)
    return made


def file_of(writer: RecordWriter) -> Path:
    return writer.folder / ".remit" / "remit.db"


def codes(report: Report) -> set[str]:
    return {finding.code for finding in report.findings}


def exported(writer: RecordWriter, to: Path) -> Path:
    note = writer.connection.execute("SELECT note FROM trees").fetchone()[0]
    writer.export("shop", to, note)
    return to


def test_a_project_its_database_and_a_copy_elsewhere_verify_alike(writer: RecordWriter, tmp_path: Path) -> None:
    writer.connection.close()
    copy = tmp_path / "elsewhere.db"
    shutil.copy(file_of(writer), copy)
    reports = [verify(writer.folder), verify(file_of(writer)), verify(copy, keys=writer.keys)]
    assert [report.findings for report in reports] == [(), (), ()]
    assert len({report.tenants[0].root for report in reports}) == 1


def test_what_stands_in_the_log_alone_is_verified_and_nothing_is_written(writer: RecordWriter) -> None:
    writer.connection.execute("PRAGMA wal_autocheckpoint = 0")
    before = verify(writer.folder).events
    writer.open("run-late", "shop")
    writer.append("run-late", "run.opened", {})
    writer.connection.commit()
    held = file_of(writer).read_bytes()
    assert verify(writer.folder).events == before + 1
    assert file_of(writer).read_bytes() == held


def test_several_processes_come_to_what_one_does(tmp_path: Path) -> None:
    writer = sqlite_record(tmp_path / "project")
    fill(writer, runs=300, events=15, tenants=("shop", "other"), every=500)
    writer.connection.execute("DELETE FROM events WHERE seq IN (100, 4200)")
    writer.connection.execute("UPDATE events SET body = body || 'x' WHERE seq = 3000")
    writer.connection.execute("UPDATE events SET seq = 9000000000000 WHERE seq = 4300")
    writer.connection.commit()
    one, two = (verify(writer.folder, options=Options(processes=count)) for count in (1, 2))
    assert (one.processes, two.processes) == (1, 2)
    assert one.findings == two.findings
    assert one.tenants == two.tenants
    assert one.found > 5


def test_an_exported_file_verifies_without_the_database(writer: RecordWriter, tmp_path: Path) -> None:
    path = exported(writer, tmp_path / "export.jsonl")
    shutil.rmtree(writer.folder)
    report = verify(path)
    assert report.findings == ()
    assert (report.own_keys, report.erased, report.tenants[0].size) == (True, 9, report.events)
    assert report.tenants[0].checkpoint is not None


def edit(index: int, **fields: Any) -> Callable[[list[str]], None]:
    def change(lines: list[str]) -> None:
        lines[index] = json.dumps(json.loads(lines[index]) | fields)

    return change


def emptied(lines: list[str]) -> list[str]:
    return [json.dumps(json.loads(lines[0]) | {"checkpoint": ""}), json.dumps({"end": True, "events": 0})]


def forged(lines: list[str]) -> list[str]:
    """A run that anybody can make without a key, and the end line that goes with it."""
    last, salt, body = json.loads(lines[-2]), "00" * 16, '{"why":"paid"}'
    header: dict[str, Any] = {**json.loads(last["header"]), "run": "run-forged", "n": 1, "prev": "", "type": "run.opened", "refs": {}}
    header |= {"body": hashlib.sha256(bytes.fromhex(salt) + body.encode()).hexdigest(), "sealed": "", "verdict": ""}
    line = {"seq": last["seq"] + 1, "header": json.dumps(header), "salt": salt, "body": body}
    return [json.dumps(line), json.dumps({"end": True, "events": len(lines) - 1})]


EXPORTS: list[tuple[str, str, Callable[[list[str]], Any]]] = [
    ("a body", "body_wrong", edit(5, body='{"amount": 1}')),
    ("a salt", "body_wrong", edit(5, salt="00" * 16)),
    ("a salt that is none", "body_wrong", edit(5, salt="zz")),
    ("a body of another type", "body_wrong", edit(5, body=7)),
    ("a body that was left out", "key_destroyed", edit(5, body=None, salt=None)),
    ("a header", "header_form", edit(5, header="{}")),
    ("a header of another type", "header_form", edit(5, header=None)),
    ("a line that is none", "line_form", lambda lines: lines.__setitem__(5, "[]")),
    ("a line of nothing", "line_form", lambda lines: lines.__setitem__(5, "")),
    ("a missing line", "event_missing", lambda lines: lines.pop(5)),
    ("swapped lines", "checkpoint_root", lambda lines: lines.insert(5, lines.pop(6))),
    ("a repeated line", "event_repeated", lambda lines: lines.insert(5, lines[5])),
    ("the tail", "events_truncated", lambda lines: lines.__delitem__(slice(-30, -1))),
    ("the last line", "file_truncated", lambda lines: lines.pop()),
    ("the count", "file_truncated", edit(-1, events=3)),
    ("the checkpoint", "checkpoint_wrong", edit(0, checkpoint="x")),
    ("the tenant", "columns_differ", edit(0, tenant="other")),
    ("no checkpoint", "events_unsigned", edit(0, checkpoint="")),
    ("everything", "events_unsigned", lambda lines: lines.__setitem__(slice(None), emptied(lines))),
    ("a run behind the checkpoint", "events_unsigned", lambda lines: lines.__setitem__(slice(-1, None), forged(lines))),
]


@pytest.mark.parametrize(("code", "change"), [one[1:] for one in EXPORTS], ids=[one[0] for one in EXPORTS])
def test_what_was_done_to_an_exported_file_is_found(
    writer: RecordWriter, tmp_path: Path, code: str, change: Callable[[list[str]], Any]
) -> None:
    path = exported(writer, tmp_path / "export.jsonl")
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("".join(f"{line}\n" for line in lines))
    report = verify(path)
    assert code in codes(report)
    assert verify(path, options=Options(processes=2)).findings == report.findings


def test_an_exported_file_is_held_against_keys_and_checkpoints_from_elsewhere(writer: RecordWriter, tmp_path: Path) -> None:
    path = exported(writer, tmp_path / "export.jsonl")
    other = sqlite_record(tmp_path / "other")
    fill(other, runs=3, events=4)
    assert "checkpoint_wrong" in codes(verify(path, keys=other.keys))
    trusted = verify(path, keys=writer.keys, since={"mine.txt": (writer.published / "shop.txt").read_text()})
    assert trusted.findings == ()
    assert not trusted.own_keys
    note = writer.signer("shop").sign(10, bytes(32))
    assert codes(verify(path, keys=writer.keys, since={"mine.txt": note})) == {"checkpoint_root"}


def test_an_exported_file_is_read_from_standard_input(writer: RecordWriter, tmp_path: Path) -> None:
    path = exported(writer, tmp_path / "export.jsonl")
    with path.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "remit_verify", "-", "--json"], stdin=file, capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["verified"] is True


def test_a_damaged_database_is_a_finding_or_unreadable_and_never_a_traceback(writer: RecordWriter, tmp_path: Path) -> None:
    writer.connection.execute("PRAGMA journal_mode = DELETE")
    writer.connection.close()
    keys, whole = Keys.read(writer.keys), file_of(writer).read_bytes()
    damaged = tmp_path / "damaged.db"
    chance = Random(7)
    found = 0
    for _ in range(120):
        data = bytearray(whole)
        kind = chance.randrange(3)
        if kind == 0:
            data = data[: chance.randrange(1, len(data))]
        for _ in range(chance.choice([1, 20, 400])):
            at = chance.randrange(len(data))
            data[at : at + 4] = chance.randbytes(4)
        damaged.write_bytes(data)
        try:
            found += not verify(damaged, keys=keys, options=Options(processes=1)).verified
        except Unreadable:
            found += 1
    assert found > 100


def file_is(name: str, text: str | None) -> Callable[[Path], Any]:
    """Write a file of a project anew, or remove it."""

    def change(folder: Path) -> None:
        if text is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(text)

    return change


UNREADABLE: list[tuple[str, Callable[[Path], Any]]] = [
    ("no `remit.toml`", file_is("remit.toml", None)),
    ("can't be read", file_is("remit.toml", "[")),
    ("is no text", file_is("remit.toml", "[project]\ndatabase = 3\n")),
    ("no database", file_is(".remit/remit.db", None)),
    ("not a database", file_is(".remit/remit.db", "x" * 9000)),
    ("no `master.key`", file_is(".remit/keys/master.key", None)),
    ("holds no master key", file_is(".remit/keys/master.key", "abc")),
    ("no verifier key", file_is(".remit/keys/record.pub", "abc\n")),
    ("no folder", lambda folder: shutil.rmtree(folder / ".remit" / "keys")),
]


@pytest.mark.parametrize(("why", "spoil"), UNREADABLE)
def test_what_can_not_be_read_is_said_and_exits_with_2(
    writer: RecordWriter, capsys: pytest.CaptureFixture[str], why: str, spoil: Callable[[Path], Any]
) -> None:
    writer.connection.close()
    for more in ("-wal", "-shm"):
        file_of(writer).with_name(f"remit.db{more}").unlink(missing_ok=True)
    spoil(writer.folder)
    assert main([str(writer.folder)]) == 2
    said = capsys.readouterr()
    assert why in said.err
    assert said.out == ""


def test_a_database_without_events_or_another_file_is_no_record(tmp_path: Path, writer: RecordWriter) -> None:
    sqlite3.connect(tmp_path / "empty.db").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(Unreadable, match="holds no record"):
        verify(tmp_path / "empty.db", keys=writer.keys)
    (tmp_path / "else.jsonl").write_text("{}\n")
    with pytest.raises(Unreadable, match="no exported record"):
        verify(tmp_path / "else.jsonl")
    with pytest.raises(Unreadable, match="no file or folder"):
        verify(tmp_path / "nothing")
    with pytest.raises(Unreadable, match=r"user@127\.0\.0\.1:1/x"):
        verify("postgresql://user:hunter2@127.0.0.1:1/x", keys=writer.keys)


def test_missing_verifier_keys_make_every_checkpoint_a_finding(writer: RecordWriter) -> None:
    (writer.keys / "record.pub").unlink()
    assert codes(verify(writer.folder)) == {"checkpoint_wrong", "events_unsigned"}


def test_another_master_key_is_told_once_a_run(writer: RecordWriter) -> None:
    (writer.keys / "master.key").write_text("00" * 32 + "\n")
    report = verify(writer.folder)
    assert codes(report) == {"key_wrong"}
    assert len({finding.run for finding in report.findings}) == report.found


def test_the_command_says_what_was_verified_and_what_is_not_shown(
    writer: RecordWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    held = writer.folder / "held.txt"
    held.write_text((writer.published / "shop.txt").read_text())
    assert main([str(writer.folder), "--from", str(held)]) == 0
    said = capsys.readouterr().out
    assert "remit.db: verified" in said
    assert re.search(r"unaltered since checkpoint 218 of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \(given in", said)
    assert "not shown: that nothing was rewritten before these checkpoints" in said
    assert main([str(writer.folder), "--from", str(held) + "x"]) == 2
    assert "can't be read" in capsys.readouterr().err


def test_the_command_tells_the_first_fifty_findings_and_counts_the_others(
    writer: RecordWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    writer.connection.execute("UPDATE events SET type = 'x\x1b[31m'")
    writer.connection.commit()
    assert main([str(writer.folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("columns_differ: tenant shop, run run-000000, event 1: its column `type`")
    assert lines[0].endswith("[events, seq 1]")
    assert len([line for line in lines if line.startswith("columns_differ")]) == 50
    assert lines[50] == "and 168 more"
    assert "NOT verified: 218 findings" in "\n".join(lines)


def test_what_stands_in_a_database_does_not_steer_a_terminal(writer: RecordWriter) -> None:
    writer.connection.execute("UPDATE runs SET tenant = 'x\x1b[31m\u202e' WHERE run = 'run-000005'")
    writer.connection.commit()
    shown = io.StringIO()
    show(verify(writer.folder), shown)
    assert "\\x1b[31m\\u202e" in shown.getvalue()
    assert "\x1b" not in shown.getvalue()


def test_the_report_is_json_with_findings_and_counts(writer: RecordWriter, capsys: pytest.CaptureFixture[str]) -> None:
    writer.connection.execute("UPDATE events SET tenant = CAST(x'ff' AS TEXT) WHERE seq = 7")
    writer.connection.commit()
    assert main([str(writer.folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["verified"] is False
    assert report["findings"][0].keys() == {"code", "wrong", "where", "tenant", "run", "n", "seq"}


def test_a_record_on_postgres_verifies_in_one_snapshot(
    tmp_path: Path, database_url: str, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--database") != "postgres":
        pytest.skip("SQLite is what all the others are on")
    import psycopg

    with psycopg.connect(database_url) as connection:
        writer = RecordWriter(tmp_path, Marks(connection), POSTGRES)
        writer.begin()
        fill(writer, runs=40, events=8, tenants=("shop", "other"), every=100)
        for processes in (1, 2):
            report = verify(database_url, keys=writer.keys, options=Options(processes=processes))
            assert report.findings == ()
            assert (report.events, report.runs) == (sum(map(len, writer.leaves.values())), 40)
        connection.execute("UPDATE events SET hash = %s WHERE seq = 9", (bytes(32),))
        connection.commit()
        assert codes(verify(database_url, keys=writer.keys)) >= {"header_hash", "leaves_differ"}


class Marks:
    """A connection to Postgres that takes statements with `?`."""

    def __init__(self, connection: Any) -> None:
        self.commit = connection.commit
        self._connection = connection

    def execute(self, sql: str, parameters: Any = None) -> Any:
        return self._connection.execute(sql.replace("?", "%s").encode(), parameters)
