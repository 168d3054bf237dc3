"""Credentials: found where `remit.toml` says, handed to tools alone, and known to the redactor."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

import pytest
from rich.console import Console
from rich.traceback import Traceback

from remit.errors import ConfigError, IdentityError
from remit.identity.files import write_private
from remit.identity.secrets import SecretReference, SecretStore, system_keyring

PASSWORD = "s3cret/p@ss wörd"


def no_keyring(service: str, user: str) -> str | None:
    raise AssertionError(f"nobody asked for {service}/{user}")


def store(folder: Path, **environ: str) -> SecretStore:
    return SecretStore(folder, environ=environ, keyring=no_keyring)


def test_a_secret_comes_from_the_environment(tmp_path: Path) -> None:
    secret = store(tmp_path, TRACKER=PASSWORD).resolve("tracker", SecretReference(env="TRACKER"))
    assert secret.reveal() == PASSWORD
    assert PASSWORD not in f"{secret!r} {secret}"


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_comes_from_a_private_file_without_the_end_of_its_line(tmp_path: Path, ending: str) -> None:
    write_private(tmp_path / "tracker", f"{PASSWORD}{ending}".encode())
    assert store(tmp_path).resolve("tracker", SecretReference(file="tracker")).reveal() == PASSWORD
    absolute = SecretReference(file=str(tmp_path / "tracker"))
    assert store(tmp_path / "elsewhere").resolve("tracker", absolute).reveal() == PASSWORD


def test_white_space_of_the_secret_itself_is_kept(tmp_path: Path) -> None:
    write_private(tmp_path / "tracker", b"  pass word \n\n")
    assert store(tmp_path).resolve("tracker", SecretReference(file="tracker")).reveal() == "  pass word \n"


def test_a_secret_comes_from_the_keyring(tmp_path: Path) -> None:
    entries = {("northwind/tracker", "remit"): PASSWORD}
    found = SecretStore(tmp_path, environ={}, keyring=lambda service, user: entries.get((service, user)))
    assert found.resolve("tracker", SecretReference(keyring="northwind/tracker/remit")).reveal() == PASSWORD
    with pytest.raises(ConfigError, match="keyring set northwind remit") as caught:
        found.resolve("tracker", SecretReference(keyring="northwind/remit"))
    assert caught.value.code == "secret_unavailable"


@pytest.mark.skipif(find_spec("keyring") is not None, reason="the optional package is installed")
def test_a_missing_keyring_package_is_named_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match="pip install keyring"):
        system_keyring("service", "user")


@pytest.mark.parametrize("entry", ["", "tracker", "/user", "service/"])
def test_a_keyring_entry_names_service_and_user(tmp_path: Path, entry: str) -> None:
    with pytest.raises(ConfigError, match="service/user"):
        store(tmp_path).resolve("tracker", SecretReference(keyring=entry))


@pytest.mark.parametrize(
    "reference",
    [
        SecretReference(),
        SecretReference(env="A", file="b"),
        SecretReference(env="A", file="b", keyring="c/d"),
    ],
)
def test_exactly_one_place_is_named(tmp_path: Path, reference: SecretReference) -> None:
    with pytest.raises(ConfigError, match="secret `tracker`: it needs exactly one of") as caught:
        store(tmp_path, A=PASSWORD).resolve("tracker", reference)
    assert caught.value.code == "config_invalid"


def test_an_unset_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="secret `tracker`: environment variable `TRACKER` is not set"):
        store(tmp_path).resolve("tracker", SecretReference(env="TRACKER"))


def test_a_file_that_others_can_read_is_refused_by_name(tmp_path: Path) -> None:
    write_private(tmp_path / "tracker", PASSWORD.encode())
    (tmp_path / "tracker").chmod(0o640)
    with pytest.raises(IdentityError, match=r"secret `tracker`: .*chmod 600") as caught:
        store(tmp_path).resolve("tracker", SecretReference(file="tracker"))
    assert caught.value.code == "file_exposed"


@pytest.mark.parametrize("short", ["", "a", "tests"])
def test_a_text_too_short_to_be_redacted_is_refused(tmp_path: Path, short: str) -> None:
    with pytest.raises(ConfigError, match="fewer than 6 characters"):
        store(tmp_path, TRACKER=short).resolve("tracker", SecretReference(env="TRACKER"))


def test_the_redactor_learns_every_spelling_of_every_secret_longest_first(tmp_path: Path) -> None:
    secrets = store(tmp_path, TRACKER=PASSWORD, OTHER="plain-text")
    assert secrets.texts() == ()
    secrets.resolve("tracker", SecretReference(env="TRACKER"))
    secrets.resolve("other", SecretReference(env="OTHER"))
    texts = secrets.texts()
    assert {PASSWORD, "s3cret%2Fp%40ss%20w%C3%B6rd", "s3cret/p@ss w\\u00f6rd", "plain-text"} == set(texts)
    assert list(texts) == sorted(texts, key=len, reverse=True)


def test_a_changed_secret_is_read_anew_and_the_old_one_stays_known(tmp_path: Path) -> None:
    secrets = store(tmp_path)
    write_private(tmp_path / "tracker", b"first-password")
    secrets.resolve("tracker", SecretReference(file="tracker"))
    write_private(tmp_path / "tracker", b"second-password")
    assert secrets.resolve("tracker", SecretReference(file="tracker")).reveal() == "second-password"
    assert set(secrets.texts()) == {"first-password", "second-password"}


@pytest.mark.parametrize("content", [b"\xffhunter2-is-not-text", b"h2h2"])
def test_the_most_talkative_traceback_holds_nothing_of_a_refused_secret(tmp_path: Path, content: bytes) -> None:
    write_private(tmp_path / "tracker", content)
    with pytest.raises(ConfigError) as caught:
        store(tmp_path).resolve("tracker", SecretReference(file="tracker"))
    console = Console(file=io.StringIO(), width=4_000)
    error = caught.value
    assert error.__traceback__ is not None
    shown = Traceback.from_exception(
        type(error), error, error.__traceback__.tb_next, show_locals=True, locals_max_string=10_000
    )
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "locals" in text
    assert "hunter2" not in text
    assert "h2h2" not in text


def test_the_store_shows_nothing_of_what_it_knows(tmp_path: Path) -> None:
    secrets = store(tmp_path, TRACKER=PASSWORD)
    secrets.resolve("tracker", SecretReference(env="TRACKER"))
    assert PASSWORD not in f"{secrets!r} {secrets}"
