"""`remit models`, and what `remit run` shows of a model while it speaks."""

from __future__ import annotations

import json
import os
import pty
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from commands import remit

from model_project import llm, model_shop
from model_server import Said, Server, serving
from project import Shop, make_shop

SUBJECTS = {"network": ["the wifi", "my vpn tunnel", "the router"], "hardware": ["the printer", "a keyboard", "my screen"]}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


def trained_shop(folder: Path, database: str) -> Shop:
    chance = random.Random(3)
    rows: list[dict[str, str]] = []
    for _ in range(80):
        label = chance.choice(list(SUBJECTS))
        text = f"hello {chance.choice(SUBJECTS[label])} is broken in room {chance.randrange(100)} please help"
        # One in eight is labelled as the other, so that there is something to be unsure of.
        rows.append({"body": text, "kind": label if chance.random() > 0.125 else "network"})
    shop = make_shop(folder, database)
    (shop.folder / "history.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with (shop.folder / "remit.toml").open("a") as file:
        file.write('\n[models.sorter]\nkind = "classifier"\ntraining = "history.jsonl"\n')
    return shop


def test_a_report_tells_how_sure_and_how_right_a_classifier_is(tmp_path: Path, database_url: str) -> None:
    shop = trained_shop(tmp_path, database_url)
    page = tmp_path / "report.html"
    text = remit(shop, "models", "report", "--html", str(page))
    assert "sorter · classifier" in text
    assert "calibration error" in text
    assert "│" in text
    assert "`hardware` taken for" in text or "`network` taken for" in text
    [told] = json.loads(remit(shop, "models", "report", "sorter", "--json"))
    [head] = told["heads"]
    assert (told["model"], head["head"], head["labels"]) == ("sorter", "kind", ["hardware", "network"])
    assert sum(each["count"] for each in head["bins"]) == head["count"] == 80
    hits = sum(row.get(truth, 0) for truth, row in head["confusion"].items())
    assert hits / head["count"] == pytest.approx(head["accuracy"])
    assert 0 < head["ece"] < 0.5
    html = page.read_text()
    drawing = ElementTree.fromstring(html[html.index("<svg") : html.index("</svg>") + 6])
    assert len(drawing.findall(".//rect")) == sum(1 for each in head["bins"] if each["count"])
    assert "script" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_a_report_of_what_is_no_classifier_says_which_there_are(tmp_path: Path, database_url: str) -> None:
    shop = trained_shop(tmp_path, database_url)
    assert "did you mean `sorter`?" in remit(shop, "models", "report", "sortr", code=1)
    (tmp_path / "none").mkdir()
    assert "declares no classifier" in remit(make_shop(tmp_path / "none", "sqlite:x"), "models", "report", code=1)


def talk(topic: str) -> str:
    return json.dumps({"form": "text", "args": {"topic": topic}})


def test_what_models_said_is_recorded_and_answers_again_without_them(
    tmp_path: Path, database_url: str, server: Server
) -> None:
    server.replies = [Said(pieces=("write to ann@corp.example",)), Said(pieces=("second",))]
    shop = model_shop(tmp_path, database_url, llm("openai", server.url))
    for topic in ("a", "b"):
        remit(shop, "run", "talk", talk(topic))
    assert "wrote 2 answers" in remit(shop, "models", "record", "--contract", "talk", "--out", str(tmp_path / "answers.jsonl"))
    lines = (tmp_path / "answers.jsonl").read_text()
    assert "ann@corp.example" not in lines
    assert "usage" not in lines
    toml = (shop.folder / "remit.toml").read_text().partition("[models.main]")[0]
    (shop.folder / "remit.toml").write_text(f'{toml}[models.main]\nkind = "recorded"\nrecording = "answers.jsonl"\n')
    assert '"second"' in remit(shop, "run", "talk", talk("b"))
    assert "holds no answers of `text`" in remit(shop, "show", json.loads(remit(shop, "run", "talk", talk("c"), "--json", code=3))["run"])
    assert len(server.asked) == 2
    exported = remit(shop, "export")
    assert '"record.exported"' in exported
    assert str(tmp_path / "answers.jsonl") in exported


def test_a_recording_is_taken_by_whom_the_record_policy_lets(tmp_path: Path, database_url: str) -> None:
    shop = trained_shop(tmp_path, database_url)
    shop.contract("desk", [{"tool": "orders.read"}])
    out = str(tmp_path / "answers.jsonl")
    assert "record_denied" in remit(shop, "models", "record", "--out", out, "--as", "anna", code=1)
    assert not (tmp_path / "answers.jsonl").exists()
    assert "wrote 0 answers" in remit(shop, "models", "record", "--out", out, "--as", "lee")


def run_on_a_terminal(shop: Shop, *arguments: str) -> tuple[str, str]:
    """What a command prints on standard output, and what it shows on a terminal that is its standard error."""
    seen, terminal = pty.openpty()
    command = [sys.executable, "-c", "from remit.cli.main import main; main()", "run", "talk", talk("a"), *arguments]
    with subprocess.Popen(command, cwd=shop.folder, stdout=subprocess.PIPE, stderr=terminal, text=True) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                piece = os.read(seen, 4096)
            except OSError:
                piece = b""
            if not piece:
                break
            shown += piece
        out, _ = process.communicate(timeout=60)
    os.close(seen)
    return out, shown.decode().replace("\r\n", "\n")


def test_a_run_on_a_terminal_shows_what_a_model_says_and_nothing_that_a_terminal_would_obey(
    tmp_path: Path, database_url: str, server: Server
) -> None:
    words = [f"word{n} " for n in range(40)]
    server.replies = [Said(pieces=[*words, "\n", "\x1b[31mred ", "ann@corp.example"])]
    shop = model_shop(tmp_path, database_url, llm("openai", server.url))
    out, shown = run_on_a_terminal(shop)
    assert shown.startswith("".join(words) + "\n")
    assert r"\x1b[31mred" in shown
    assert "ann@corp.example" not in shown
    assert "word39" in out
    assert run_on_a_terminal(shop, "--no-stream")[1] == ""
    out, shown = run_on_a_terminal(shop, "--json")
    assert (json.loads(out)["outcome"], shown) == ("completed", "")
