from __future__ import annotations

import os
import stat
from pathlib import Path

import jsonschema_rs
import pytest

from remit.contracts.model import Limits
from remit.contracts.paths import ensure_private, find_project, inside
from remit.contracts.problems import ProjectInvalid
from remit.contracts.project import load_project
from remit.contracts.project_file import SecretSource, project_schema
from remit.errors import ConfigError

EVERYTHING = """\
[project]
name = "it-desk"
tenant = "northwind"
region = "eu"
database = "postgresql://remit@127.0.0.1/remit"
secret = { env = "DATABASE_PASSWORD" }

[tools]
modules = ["remit.connectors.roundup.tools", "tools/directory.py"]

[connections.tracker]
url = "http://127.0.0.1:8917"
user = "remit-agent"
secret = { file = ".remit/secrets/tracker" }

[connections.directory]
url = "https://directory.example"
user = "remit-agent"
secret = { keyring = "directory/remit-agent" }

[models.classifier]
kind = "classifier"
training = "data/history.jsonl"

[models.writer]
kind = "llm"
model = "openai:gpt-5-mini"
base_url = "http://127.0.0.1:8080/v1"
secret = { file = "/run/secrets/writer" }

[limits]
calls_per_minute = 6000
spend_per_day = "5 USD"

[identity]
audience = "remit"
algorithm = "ES256"
token_minutes = 15

[[identity.issuers]]
issuer = "https://idp.example"
jwks = "jwks.json"
audience = "remit"
algorithms = ["ES256", "EdDSA"]
people_claim = "email"

[queues.service-desk]
roles = ["it-lead"]

[releases]
approval = "role:release-manager"

[people.lee]
name = "Lee Park"
roles = ["it-lead", "release-manager"]

[people."ann@shop.example"]
name = "Ann"
"""

SMALLEST = '[project]\nname = "a"\ntenant = "b"\nregion = "eu"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/directory.py").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/history.jsonl").touch()
    (tmp_path / "jwks.json").touch()
    (tmp_path / "remit.toml").write_text(EVERYTHING)
    return tmp_path


def test_every_section_is_read_into_its_type(folder: Path) -> None:
    project = load_project(folder)
    assert project.folder == folder.resolve()
    assert project.project.tenant == "northwind"
    assert project.project.secret == SecretSource(env="DATABASE_PASSWORD")
    assert project.tools.modules == ["remit.connectors.roundup.tools", "tools/directory.py"]
    assert project.connections["tracker"].secret.file == ".remit/secrets/tracker"
    assert project.models["writer"].base_url == "http://127.0.0.1:8080/v1"
    assert project.limits == Limits(calls_per_minute=6000, spend_per_day="5 USD")
    assert project.identity.algorithm == "ES256"
    assert project.identity.issuers[0].algorithms == ["ES256", "EdDSA"]
    assert project.queues["service-desk"].roles == ["it-lead"]
    assert project.releases.approval == "role:release-manager"
    assert project.people["lee"].name == "Lee Park"
    assert project.roles == {"it-lead", "release-manager"}


def test_what_is_left_out_has_a_safe_default(tmp_path: Path) -> None:
    (tmp_path / "remit.toml").write_text(SMALLEST)
    project = load_project(tmp_path)
    assert project.project.database == "sqlite:.remit/remit.db"
    assert project.identity.token_minutes == 10
    assert project.identity.algorithm == "EdDSA"
    assert project.identity.issuers == []
    assert project.people == {}
    assert project.releases.approval is None


def test_every_problem_of_the_file_is_raised_at_once(folder: Path) -> None:
    text = EVERYTHING.replace("token_minutes = 15", "token_minutes = 16").replace('tenant = "northwind"\n', "")
    (folder / "remit.toml").write_text(text.replace('"tools/directory.py"', '"tools/nothing.py"') + "colour = 1\n")
    with pytest.raises(ProjectInvalid) as caught:
        load_project(folder)
    assert [(each.line, each.message) for each in caught.value.problems] == [
        (1, "key `tenant` is missing in `project`"),
        (8, "file `tools/nothing.py` does not exist"),
        (37, "`identity.token_minutes` is `16`; the most is 15"),
        (58, "key `colour` is not known in `people.ann@shop.example`"),
    ]
    assert caught.value.code == "config_invalid"
    assert "remit.toml:8: file `tools/nothing.py` does not exist" in caught.value.message


@pytest.mark.parametrize("rest", ["auditor:hunter2pass@store.example/c", "store.example/c?sig=hunter2pass", "store.example/c#hunter2pass"])
def test_an_anchor_whose_address_holds_a_secret_is_refused_without_showing_it(tmp_path: Path, rest: str) -> None:
    named = f'[project]\nname = "a"\ntenant = "t"\nregion = "eu"\n[record]\nanchors = ["git:kept", "https://{rest}"]\n'
    (tmp_path / "remit.toml").write_text(named)
    with pytest.raises(ProjectInvalid, match=r"record\.anchors.* holds a name, a password") as raised:
        load_project(tmp_path)
    assert "netrc" in str(raised.value)
    assert "hunter2pass" not in str(raised.value)


def test_warnings_alone_do_not_keep_a_project_from_loading(folder: Path) -> None:
    (folder / ".remit/secrets").mkdir(parents=True)
    secret = folder / ".remit/secrets/tracker"
    secret.touch(mode=0o644)
    assert load_project(folder).project.name == "it-desk"


@pytest.mark.parametrize("content", [b"", b"\xff", b"[project", b"x = 1", b"project = 3", b"a = 1\x00", b"#" * 300_000])
def test_a_file_that_is_none_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "remit.toml").write_bytes(content)
    with pytest.raises(ProjectInvalid, match=r"^remit\.toml:1: "):
        load_project(tmp_path)


def test_a_folder_without_the_file_and_a_file_that_is_a_folder_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ProjectInvalid, match="the file does not exist"):
        load_project(tmp_path)
    (tmp_path / "remit.toml").mkdir()
    with pytest.raises(ProjectInvalid, match="the file can't be read: is a directory"):
        load_project(tmp_path)


def test_the_project_is_found_from_any_folder_in_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = folder / "contracts/refunds/schemas"
    deep.mkdir(parents=True)
    assert find_project(deep) == folder.resolve()
    assert find_project(folder) == folder.resolve()
    monkeypatch.chdir(deep)
    assert find_project() == folder.resolve()


def test_where_there_is_no_project_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run `remit init`"):
        find_project(tmp_path)


@pytest.mark.parametrize("reference", ["../x", "a/../../x", "/etc/passwd", "", "out", "out/x", "a\0b"])
def test_a_path_that_leaves_the_project_is_refused(folder: Path, reference: str) -> None:
    (folder / "out").symlink_to(folder.parent)
    with pytest.raises(ConfigError, match=r"inside the project|into it"):
        load_project(folder).path(reference)


def test_a_path_inside_the_project_is_resolved(folder: Path) -> None:
    (folder / "link.jsonl").symlink_to("data/history.jsonl")
    assert load_project(folder).path("link.jsonl") == folder.resolve() / "data/history.jsonl"
    assert inside(folder, folder / "data", "../jwks.json") == folder.resolve() / "jwks.json"


def test_links_that_go_round_in_circles_are_refused(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    project = load_project(folder)
    try:
        assert project.path("a").is_relative_to(folder.resolve())
        assert not project.path("a").is_file()
    except ConfigError as error:
        assert "round in circles" in error.message  # noqa: PT017 - what happens depends on the version of Python


def test_a_contract_is_found_by_its_name_and_by_nothing_that_is_none(folder: Path) -> None:
    for name in ("refunds", "it-tickets", ".hidden", "__pycache__"):
        (folder / "contracts" / name).mkdir(parents=True)
    (folder / "contracts/notes.txt").touch()
    project = load_project(folder)
    assert [each.name for each in project.contracts] == ["it-tickets", "refunds"]
    assert project.contract_folder("refunds") == folder.resolve() / "contracts/refunds"
    for name in ("..", "../contracts/refunds", "", ".hidden", "nothing"):
        with pytest.raises(ConfigError, match="contracts here: it-tickets, refunds"):
            project.contract_folder(name)


def test_the_private_folder_is_for_its_owner_only_and_ignored_by_git(folder: Path) -> None:
    old = os.umask(0)
    try:
        private = ensure_private(folder)
    finally:
        os.umask(old)
    assert private == folder / ".remit"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert (private / ".gitignore").read_text() == "*\n"
    (private / ".gitignore").write_text("mine\n")
    private.chmod(0o755)
    ensure_private(folder)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert (private / ".gitignore").read_text() == "mine\n"


def test_a_private_folder_that_is_a_link_or_a_file_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / ".remit").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="a folder of its own"):
        ensure_private(folder)
    (folder / ".remit").unlink()
    (folder / ".remit").touch()
    with pytest.raises(ConfigError, match=r"can't be made|a folder of its own"):
        ensure_private(folder)


def test_the_schema_for_editors_describes_every_key() -> None:
    schema = project_schema()
    jsonschema_rs.Draft202012Validator(schema)
    assert schema["title"] == "Remit project"
    for definition in schema["$defs"].values():
        assert definition["description"]
        for field in definition.get("properties", {}).values():
            assert field["description"]
            assert field["title"]
