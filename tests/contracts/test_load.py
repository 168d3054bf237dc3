from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from remit.checking.check import project_tools
from remit.contracts.load import LoadedContract, load_contract
from remit.contracts.model import Contract
from remit.contracts.problems import ProjectInvalid
from remit.contracts.project import Project, load_project
from remit.contracts.scaffold import init_project
from remit.errors import ConfigError
from remit.values import encode

TOOLS = {"notes.search": "1" * 64, "notes.add": "2" * 64, "notes.other": "3" * 64}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init_project(tmp_path / "shop", "keep-notes")
    folder = tmp_path / "shop"
    (folder / "contracts/keep-notes/prompts").mkdir()
    (folder / "contracts/keep-notes/prompts/assess.md").write_text("How sure are you?\n")
    (folder / "history.jsonl").write_text('{"text": "a", "category": "b"}\n')
    append(folder / "remit.toml", '\n[models.triage]\nkind = "classifier"\ntraining = "history.jsonl"\n')
    append(folder / "contracts/keep-notes/contract.yaml", "models:\n  triage: {use: triage, prompt: assess.md}\n")
    return folder


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def load(folder: Path) -> LoadedContract:
    return load_contract(folder / "contracts/keep-notes", load_project(folder))


def test_a_contract_is_loaded_with_all_that_belongs_to_it(folder: Path) -> None:
    loaded = load(folder)
    assert loaded.name == "keep-notes"
    assert (loaded.tenant, loaded.region) == ("shop", "eu")
    assert (loaded.contract.tenant, loaded.contract.region) == ("shop", "eu")
    assert loaded.principal == "agent/shop/keep-notes"
    assert loaded.folder == (folder / "contracts/keep-notes").resolve()
    assert loaded.workflow == loaded.folder / "workflow.py"
    assert loaded.entry == "keep_notes"
    assert loaded.prompts == {"assess.md": "How sure are you?\n"}
    assert "no-passwords" in loaded.policy
    assert list(loaded.code) == ["workflow.py"]
    assert loaded.models["triage"].training == "history.jsonl"
    assert loaded.input_validator.is_valid({"text": "hello"})
    assert not loaded.input_validator.is_valid({"text": "hello", "more": 1})
    assert not loaded.output_validator.is_valid({})


def test_a_loaded_contract_can_not_be_changed(folder: Path) -> None:
    loaded = load(folder)
    with pytest.raises(AttributeError):
        loaded.policy = ""  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(AttributeError):
        loaded.contract.purpose = ""  # pyright: ignore[reportAttributeAccessIssue]


def test_the_digest_is_that_of_the_content_and_of_nothing_else(folder: Path, tmp_path: Path) -> None:
    first = load(folder).digest(TOOLS)
    assert len(first) == 64
    assert load(folder).digest(TOOLS) == first
    folder.rename(tmp_path / "elsewhere")
    assert load(tmp_path / "elsewhere").digest(TOOLS) == first


def replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def write(file: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).write_text(text)

    return change


CONTRACT = "contracts/keep-notes"


@pytest.mark.parametrize(
    "change",
    [
        replace(f"{CONTRACT}/contract.yaml", "per_hour: 60", "per_hour: 61"),
        replace(f"{CONTRACT}/policy.cedar", "*password*", "*secret*"),
        replace(f"{CONTRACT}/prompts/assess.md", "sure", "certain"),
        replace(f"{CONTRACT}/schemas/request.json", "500", "501"),
        replace(f"{CONTRACT}/schemas/result.json", "is new", "is"),
        replace(f"{CONTRACT}/workflow.py", "says nothing", "is empty"),
        replace("remit.toml", 'region = "eu"', 'region = "us"'),
        replace("history.jsonl", "b", "c"),
        write(f"{CONTRACT}/rules.py", "x = 1\n"),
        write(f"{CONTRACT}/prompts/second.md", ""),
    ],
)
def test_every_change_that_shapes_behaviour_changes_the_digest(folder: Path, change: Callable[[Path], None]) -> None:
    first = load(folder).digest(TOOLS)
    change(folder)
    assert load(folder).digest(TOOLS) != first


@pytest.mark.parametrize(
    "change",
    [
        replace(f"{CONTRACT}/contract.yaml", "per_hour: 60", "per_hour:   60"),
        replace(f"{CONTRACT}/policy_tests.yaml", "a note may be added", "a note is added"),
        replace(f"{CONTRACT}/evals/golden.jsonl", "hunter2", "hunter3"),
        replace("remit.toml", 'name = "Me"', 'name = "Lee"'),
        write(f"{CONTRACT}/evals/judge.py", "x = 1\n"),
        write(f"{CONTRACT}/prompts/.assess.md.swp", ""),
    ],
)
def test_what_does_not_shape_behaviour_does_not_change_it(folder: Path, change: Callable[[Path], None]) -> None:
    first = load(folder).digest(TOOLS)
    change(folder)
    assert load(folder).digest(TOOLS) == first


def test_another_tool_behind_the_same_name_is_another_release(folder: Path) -> None:
    loaded = load(folder)
    assert loaded.digest({**TOOLS, "notes.add": "4" * 64}) != loaded.digest(TOOLS)
    assert loaded.digest({**TOOLS, "notes.other": "4" * 64}) == loaded.digest(TOOLS)
    with pytest.raises(ConfigError, match=r"tool `notes\.search` is not known"):
        loaded.digest({"notes.add": "2" * 64})


def test_the_bundle_is_json_from_which_the_contract_can_be_read_again(folder: Path) -> None:
    loaded = load(folder)
    bundle = msgspec.json.decode(encode(loaded.bundle(TOOLS)))
    assert msgspec.convert(bundle["contract"], Contract) == loaded.contract
    assert bundle["tools"] == {name: TOOLS[name] for name in ("notes.add", "notes.search")}
    assert bundle["contract"]["attempts"] == 3


def test_no_secret_and_no_place_of_one_is_in_the_bundle(folder: Path) -> None:
    append(
        folder / "remit.toml",
        '[models.writer]\nkind = "llm"\nmodel = "openai:x"\nsecret = { env = "WRITER_KEY" }\n',
    )
    replace(f"{CONTRACT}/contract.yaml", "use: triage", "use: writer")(folder)
    (folder / CONTRACT / "prompts/assess.answer.json").write_text('{"sure": ["yes", "no"]}')
    bundle = load(folder).bundle(TOOLS)
    assert bundle["models"] == {"triage": {"kind": "llm", "model": "openai:x", "base_url": None, "training": None}}
    assert b"WRITER_KEY" not in encode(bundle)


def test_with_the_tools_every_rule_is_applied_without_them_those_that_need_none(folder: Path) -> None:
    project: Project = load_project(folder)
    replace(f"{CONTRACT}/contract.yaml", "notes.search", "notes.find")(folder)
    load_contract(folder / CONTRACT, project)
    with pytest.raises(
        ProjectInvalid, match=r"contracts/keep-notes/contract\.yaml:11: tool `notes\.find` is not known"
    ):
        load_contract(folder / CONTRACT, project, project_tools(project))
    replace(f"{CONTRACT}/contract.yaml", "queue:desk", "queue:office")(folder)
    with pytest.raises(ProjectInvalid, match="queue `office` is not declared"):
        load_contract(folder / CONTRACT, project)


def test_a_warning_does_not_keep_a_contract_from_loading(folder: Path) -> None:
    append(folder / CONTRACT / "contract.yaml", "retention: 30d\n")
    assert load(folder).contract.retention == "30d"


def test_a_contract_outside_of_the_project_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not in the project"):
        load_contract(tmp_path, load_project(folder))


def test_a_project_that_is_reached_through_a_link_loads_the_same(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert load(tmp_path / "link").digest(TOOLS) == load(folder).digest(TOOLS)
