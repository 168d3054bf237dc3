"""`remit replay`: a table to follow, JSON to build upon, and one page to send to somebody."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commands import HOSTILE, make_hostile_shop, remit, remit_json, start

from project import Shop
from remit.cli.replay import since_us
from remit.errors import RunError


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    return make_hostile_shop(tmp_path, database_url)


def change_code(shop: Shop) -> None:
    path = shop.folder / "contracts" / "acts" / "workflow.py"
    path.write_text(path.read_text().replace("60.00", "61.00"))


def test_a_replay_shows_every_call_and_decision_and_the_result(shop: Shop) -> None:
    start(shop, "propose", "hello")
    start(shop, "ask", "DE0933")
    shown = remit(shop, "replay", "--last", "5")
    assert re.search(r"^run \w{8} · acts · release \w{6} · [\d:]+ · completed   identical$", shown, re.M)
    assert re.search(r"^ +step +tool +verdict +outcome +time +rule +arguments$", shown, re.M)
    assert re.search(r"^ +1 +payments.refund +hold +held +autonomy:payments.refund +account=DE0933 ", shown, re.M)
    assert "it is not ended (held); the 1 step so far came out the same" in shown
    assert shown.splitlines()[-1] == "2 runs · 4 calls · 4 decisions · 1 identical · 0 diverged · 1 undetermined"


def test_what_keeps_many_runs_from_being_told_is_said_once_for_all_of_them(shop: Shop, tmp_path: Path) -> None:
    for _ in range(3):
        start(shop, "ask", "DE0933")
    page = tmp_path / "page.html"
    shown = remit(shop, "replay", "--last", "5", "--html", str(page))
    why = "3 undetermined: it is not ended (held); the 1 step so far came out the same"
    assert shown.splitlines()[-2:] == [why, "3 runs · 3 calls · 3 decisions · 0 identical · 0 diverged · 3 undetermined"]
    assert page.read_text().count(why) == 1


def test_the_json_counts_and_tells_each_run(shop: Shop) -> None:
    made = start(shop, "propose", "hello")
    found = remit_json(shop, "replay", "--last", "5")
    assert {name: found[name] for name in ("runs", "identical", "diverged", "undetermined")} == {
        "runs": 1,
        "identical": 1,
        "diverged": 0,
        "undetermined": 0,
    }
    (detail,) = found["details"]
    assert (detail["run"], detail["result"], [call["verdict"] for call in detail["calls"]]) == (
        made["run"],
        "identical",
        ["deny", "reject", "reject"],
    )


def test_a_divergence_says_where_what_and_why_and_exits_with_3(shop: Shop) -> None:
    made = start(shop, "ask", "DE0933")
    change_code(shop)
    shown = remit(shop, "replay", str(made["run"]), code=3)
    assert re.search(r'^    expected a call of `payments.refund` .*amount.amount="60.00"', shown, re.M)
    assert re.search(r'^    came     a call of `payments.refund` .*"61.00".*not the same: amount.amount', shown, re.M)
    assert f"{made['run']} diverged at step 1: changed since: code `workflow.py`" in shown
    remit(shop, "replay", str(made["run"]), "--code", "recorded")
    (detail,) = remit_json_with(shop, 3, "replay", "--last", "1")["details"]
    assert detail["divergence"]["differing"] == ["amount.amount"]


def remit_json_with(shop: Shop, code: int, *arguments: str) -> dict[str, list[dict[str, dict[str, list[str]]]]]:
    import json

    return json.loads(remit(shop, *arguments, "--json", code=code))


class Elements(HTMLParser):
    """The elements and attributes of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words.append(data)


ATTACK = "<script>alert(1)</script><img src=x onerror=alert(1)> \"' --> </details></style> &lt;b&gt; " + HOSTILE


@pytest.mark.parametrize("level", ["0", "1", "2", "3"])
def test_what_a_ticket_says_stays_text_in_the_page(shop: Shop, tmp_path: Path, level: str) -> None:
    for do in ("propose", "escalate", "ask", "break"):
        start(shop, do, ATTACK)
    page, policy = tmp_path / "page.html", tmp_path / "other.cedar"
    policy.write_text('@id("no") @reason("<script>")\nforbid (principal, action == Action::"payments.refund", resource);\n')
    change = ["--change", f"policy={policy}"] if level == "3" else []
    remit(shop, "replay", "--last", "9", "--level", level, "--html", str(page), *change)
    text = page.read_text(encoding="utf-8")
    found = Elements()
    found.feed(text)
    assert found.tags <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "div", "p", "ul", "li", "b", "span", "code"),
        *("details", "summary", "table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd"),
    }
    assert found.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class", "open"}
    assert "url(" not in text
    assert "<script>alert(1)</script>" in "".join(found.words)
    assert {c for c in text if c != "\n" and not c.isprintable()} == set()
    assert text.count("<details") == text.count("</details>") == 4


def test_the_page_of_a_divergence_opens_on_it(shop: Shop, tmp_path: Path) -> None:
    start(shop, "ask", "DE0933")
    start(shop, "nothing", "x")
    change_code(shop)
    remit(shop, "replay", "--last", "9", "--html", str(tmp_path / "page.html"), code=3)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count('<details class="run" open>') == 1
    assert "diverged at step 1" in text


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ([], "which runs to replay isn't clear"),
        (["--last", "1", "--since", "1d"], "which runs to replay isn't clear"),
        (["--last", "1", "--level", "3"], "name it with `--change`"),
        (["--last", "1", "--change", "policy=x"], "are for `--level 3`"),
        (["--last", "1", "--code", "tomorrow's"], "neither `present` nor `recorded`"),
        (["--since", "yesterday"], "time `yesterday` is none"),
        (["nosuchrun"], "there is no run `nosuchrun`"),
    ],
)
def test_what_is_not_clear_is_refused_with_what_to_do(shop: Shop, arguments: list[str], wrong: str) -> None:
    assert wrong in remit(shop, "replay", *arguments, code=1)


def test_a_time_is_a_date_a_moment_or_how_long_ago() -> None:
    now = 1_800_000_000_000_000
    assert since_us("2h", now) == now - 7_200_000_000
    assert since_us("2026-11-25", now) == 1_795_564_800_000_000
    assert since_us("2026-11-25T01:00+01:00", now) == 1_795_564_800_000_000
    with pytest.raises(RunError):
        since_us("25.11.", now)
