from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import yaml

import remit
from remit.checking.check import check_project, project_tools
from remit.checking.policy_tests import run_policy_tests
from remit.contracts.load import load_contract
from remit.contracts.problems import errors, render
from remit.contracts.project import load_project
from remit.contracts.scaffold import init_project
from remit.errors import ConfigError
from remit.policy.decision import PolicyDecisionPoint


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_project_has_no_problem_and_its_policy_tests_pass(tmp_path: Path) -> None:
    written = init_project(tmp_path / "agents", "it-tickets")
    folder = tmp_path / "agents"
    assert sorted(everything(folder)) == [path.as_posix() for path in written]
    assert check_project(folder, project_tools) == [], render(check_project(folder, project_tools))
    project = load_project(folder)
    specs = project_tools(project)
    loaded = load_contract(folder / "contracts/it-tickets", project, specs)
    policy = PolicyDecisionPoint.build(loaded.contract, specs, loaded.policy)
    results = run_policy_tests(folder / "contracts/it-tickets/policy_tests.yaml", policy, specs)
    assert [(each.name, each.passed) for each in results] == [
        ("a note may be added", True),
        ("a password is kept out", True),
    ]


def test_a_new_project_does_what_its_golden_tasks_say(tmp_path: Path) -> None:
    init_project(tmp_path, "it-tickets")
    tasks = [
        json.loads(line) for line in (tmp_path / "contracts/it-tickets/evals/golden.jsonl").read_text().splitlines()
    ]
    assert len(tasks) == 4

    async def run_all() -> None:
        async with remit.Remit(tmp_path) as agents:
            for task in tasks:
                result = await agents.run("it-tickets", task["request"])
                assert result.outcome == task["outcome"], task["name"]
                for key, value in task.get("output", {}).items():
                    assert result.output[key] == value, task["name"]

    asyncio.run(run_all())
    notes = [json.loads(line) for line in (tmp_path / "notes.jsonl").read_text().splitlines()]
    assert [note["text"] for note in notes] == ["the printer on floor 3 is out of paper"]


@pytest.mark.parametrize("name", ["My Agents 2", "x", "123", "---", "Ünïcode", "a" * 60, "it.desk"])
def test_any_folder_name_makes_a_sound_project(tmp_path: Path, name: str) -> None:
    init_project(tmp_path / name, "notes")
    assert check_project(tmp_path / name, project_tools) == []


def test_a_folder_that_holds_other_things_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/mine.py").write_text("mine = 1\n")
    (tmp_path / "contracts").mkdir()
    init_project(tmp_path, "notes")
    assert (tmp_path / "README.md").read_text() == "mine"
    assert (tmp_path / "tools/mine.py").read_text() == "mine = 1\n"
    assert check_project(tmp_path, project_tools) == []
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".remit-init")]


@pytest.mark.parametrize("blocking", ["remit.toml", "tools/notes.py", "contracts/notes/policy.cedar"])
def test_nothing_is_written_where_something_is_in_the_way(tmp_path: Path, blocking: str) -> None:
    path = tmp_path / blocking
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    with pytest.raises(ConfigError, match=rf"in the way .*`{blocking}`") as caught:
        init_project(tmp_path, "notes")
    assert caught.value.message.count("`") == 4
    assert everything(tmp_path) == {blocking: b"mine"}


def test_all_that_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "remit.toml").symlink_to("nowhere")
    (tmp_path / "tools").write_text("a file where a folder should be")
    with pytest.raises(ConfigError, match=r"`remit\.toml`, `tools/notes\.py`"):
        init_project(tmp_path, "notes")
    assert everything(tmp_path) == {"tools": b"a file where a folder should be"}


def test_a_second_project_in_the_same_place_is_refused_and_the_first_is_unchanged(tmp_path: Path) -> None:
    init_project(tmp_path / "a", "notes")
    before = everything(tmp_path)
    with pytest.raises(ConfigError, match=r"in the way"):
        init_project(tmp_path / "a", "other")
    assert everything(tmp_path) == before


def test_what_is_in_place_already_is_taken_back_when_a_later_part_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/mine.py").write_text("mine = 1\n")
    written: list[str] = []
    write = Path.open

    def full(path: Path, mode: str = "r", **options: object) -> object:
        if mode == "xb":
            written.append(path.name)
        if path.name == "remit.toml" and mode == "xb":
            raise OSError(28, "No space left on device")
        return write(path, mode, **options)  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType]

    # The disk is what is faked here: it is full when the last file comes.
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ConfigError, match="no space left on device; nothing was changed"):
        init_project(tmp_path, "notes")
    monkeypatch.undo()
    assert (sorted(written), written[-1]) == (["notes.py", "record.cedar", "remit.toml"], "remit.toml")
    assert everything(tmp_path) == {"tools/mine.py": b"mine = 1\n"}
    assert not (tmp_path / "contracts").exists()


def test_a_folder_that_can_not_be_written_to_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"in the way"):
        init_project(tmp_path / "file", "notes")
    with pytest.raises(ConfigError, match="nothing was changed"):
        init_project(tmp_path / ("x" * 300), "notes")


@pytest.mark.parametrize("name", ["", "It", "../x", "a/b", "a" * 49, "1st", "a_b", "a\n", "class", "import"])
def test_a_name_that_can_not_be_a_contracts_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"can't be the name of a contract|is a word of Python"):
        init_project(tmp_path, name)
    assert everything(tmp_path) == {}


def test_the_templates_are_small_enough_to_be_read(tmp_path: Path) -> None:
    written = init_project(tmp_path, "notes")
    for path in written:
        text = (tmp_path / path).read_text()
        assert len(text.splitlines()) <= 70
        assert "@@" not in text
    assert yaml.safe_load((tmp_path / "contracts/notes/contract.yaml").read_text())["contract"] == "notes"
    assert errors(check_project(tmp_path, project_tools)) == []
