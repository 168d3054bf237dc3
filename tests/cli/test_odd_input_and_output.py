"""Whatever is typed, and wherever the output goes, the answer is words: never a traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import make_hostile_shop, remit, remit_json, start

from project import Shop

NO_TEXT = os.fsdecode(b"\xff")
"""What Python makes of a byte that is no UTF-8."""
FINE = '{"do": "return", "text": "fine"}'


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    return make_hostile_shop(tmp_path, database_url)


def to_full_disk(shop: Shop, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command whose output nobody can keep."""
    command = [sys.executable, "-c", "from remit.cli.main import main; main()", *arguments]
    environment = {**os.environ, "REMIT_PROJECT": str(shop.folder)}
    with Path("/dev/full").open("w") as full:
        return subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False, timeout=60
        )


@pytest.mark.parametrize("number", ["99999999999999999999", str(2**63), "1000001", "0", "-1"])
def test_more_rows_than_there_can_be_are_not_asked_for(shop: Shop, number: str) -> None:
    assert "--last" in remit(shop, "runs", "--last", number, code=2)
    assert "--limit" in remit(shop, "cases", "--limit", number, code=2)
    if number != "0":
        assert "--offset" in remit(shop, "cases", "--offset", number, code=2)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["show", NO_TEXT], "run_not_found"),
        (["close", NO_TEXT, "--as", "lee"], "run_not_found"),
        (["case", f"case-{NO_TEXT}"], "case_not_found"),
        (["deny", NO_TEXT, "--as", "lee"], "case_not_found"),
        (["case", "1", "--as", NO_TEXT], "case_not_found"),
        (["deny", "--all", "--as", NO_TEXT], "principal_unknown"),
        (["cases", "--run", NO_TEXT], "run_not_found"),
        (["principal", "disable", f"agent/shop/{NO_TEXT}"], "principal_unknown"),
        (["principal", "enable", NO_TEXT], "principal_unknown"),
        (["token", NO_TEXT], "principal_unknown"),
        (["run", "acts", f'{{"do": "return", "text": "{NO_TEXT}"}}'], "value_refused"),
    ],
)
def test_a_byte_that_is_no_text_is_found_nowhere(shop: Shop, arguments: list[str], code: str) -> None:
    said = remit(shop, *arguments, code=1)
    assert said.startswith("error: ")
    assert code in said


@pytest.mark.parametrize("name", ["--rule", "--contract", "--kind", "--queue"])
def test_a_filter_that_is_no_text_leaves_nothing(shop: Shop, name: str) -> None:
    start(shop, "ask", "DE1")
    assert remit_json(shop, "cases", name, NO_TEXT) == []


@pytest.mark.parametrize(
    "arguments",
    [["runs"], ["runs", "--json"], ["cases"], ["policy", "show", "acts"], ["keys", "jwks"], ["token", "lee"], ["version"]],
)
def test_output_that_can_not_be_written_is_an_error_in_words(shop: Shop, arguments: list[str]) -> None:
    ended = to_full_disk(shop, *arguments)
    assert ended.returncode == 1
    assert ended.stderr == "error: can't write to standard output: no space left on device (output_lost)\n"


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_the_id_of_a_run_whose_output_is_lost_is_on_standard_error(shop: Shop, form: list[str]) -> None:
    ended = to_full_disk(shop, "run", "acts", FINE, *form)
    [run] = re.findall(r"; (run-[0-9a-f]+) is completed", ended.stderr)
    assert ended.returncode == 1
    assert [row["run"] for row in remit_json(shop, "runs")] == [run]


def test_what_was_decided_is_said_where_the_output_is_lost_and_the_run_goes_on_all_the_same(shop: Shop) -> None:
    opened = start(shop, "ask", "DE1")
    ended = to_full_disk(shop, "approve", opened["case"], "--as", "lee")
    assert f"; {opened['case']} is approved" in ended.stderr
    assert [row["outcome"] for row in remit_json(shop, "runs")] == ["completed"]
    other = start(shop, "ask", "DE2")
    assert f"; {other['run']} is stopped" in to_full_disk(shop, "close", other["run"], "--as", "lee").stderr
    assert "; person/anna is disabled" in to_full_disk(shop, "principal", "disable", "person/anna").stderr
