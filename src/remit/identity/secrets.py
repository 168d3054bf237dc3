"""The tools' credentials: resolved from where `remit.toml` says they are, by the gateway alone.

The store also knows every text it ever handed out, so that redaction can keep all of them out of the record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from remit.errors import ConfigError, IdentityError
from remit.identity.files import read_private
from remit.tools.spec import Secret

MIN_CHARACTERS = 6
"""A shorter text would be found in ordinary words, so it could not be kept out of the record."""


class Reference(Protocol):
    """Where a secret is: exactly one of the three is set."""

    @property
    def env(self) -> str | None:
        """The name of an environment variable."""
        ...

    @property
    def file(self) -> str | None:
        """A file of mode 0600, relative to the project folder."""
        ...

    @property
    def keyring(self) -> str | None:
        """`service/user` in the system's keyring."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretReference:
    """A `Reference` as a plain value."""

    env: str | None = None
    file: str | None = None
    keyring: str | None = None


KeyringLookup = Callable[[str, str], str | None]
"""`(service, user)` → the password, or `None` where there is none."""


def system_keyring(service: str, user: str) -> str | None:
    """Look into the system's keyring through the optional package `keyring`.

    Raises `ConfigError` where the package is missing or the keyring can't be used.
    """
    try:
        keyring: Any = import_module("keyring")
        errors: Any = import_module("keyring.errors")
    except ImportError as error:
        raise ConfigError(
            "the package `keyring` is not installed; run `pip install keyring`, or use `env` or `file`",
            code="secret_unavailable",
        ) from error
    try:
        return keyring.get_password(service, user)
    except errors.KeyringError as error:
        raise ConfigError(
            "the system's keyring can't be used; unlock it, or use `env` or `file`", code="secret_unavailable"
        ) from error


class SecretStore:
    """Resolves references, and remembers what must never appear anywhere.

    `folder` is the project's; `environ` and `keyring` are where else to look.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environ: Mapping[str, str] = os.environ,
        keyring: KeyringLookup = system_keyring,
    ) -> None:
        self._folder = folder
        self._environ = environ
        self._keyring = keyring
        self._known: set[str] = set()

    def resolve(self, name: str, reference: Reference) -> Secret:
        """The secret of connection `name`, read anew each time.

        Raises `ConfigError` (`config_invalid`, `secret_unavailable`) or `IdentityError` for a file that
        others can read; no message holds any part of the secret.
        """
        try:
            text = self._look_up(name, reference)
        except (ConfigError, IdentityError) as error:
            raise type(error)(f"secret `{name}`: {error.message}", code=error.code) from error
        if len(text) < MIN_CHARACTERS:
            del text  # a traceback may show what its frames hold
            raise ConfigError(
                f"secret `{name}` has fewer than {MIN_CHARACTERS} characters, too few to be kept out of the "
                "record; choose a longer one",
                code="secret_unavailable",
            )
        self._known.add(text)
        return Secret(name=name, _text=text)

    def texts(self) -> tuple[str, ...]:
        """Every resolved secret, also as a URL and as JSON spell it; for the redactor, longest first."""
        spelled = {form for text in self._known for form in (text, quote(text, safe=""), json.dumps(text)[1:-1])}
        return tuple(sorted(spelled, key=lambda form: (-len(form), form)))

    def __repr__(self) -> str:
        return f"SecretStore({self._folder})"

    def _look_up(self, name: str, reference: Reference) -> str:
        match (reference.env, reference.file, reference.keyring):
            case (str(variable), None, None):
                return self._from_environment(variable)
            case (None, str(file), None):
                return self._from_file(self._folder / file)
            case (None, None, str(entry)):
                return self._from_keyring(entry)
            case _:
                raise ConfigError(
                    "it needs exactly one of `env`, `file` and `keyring`, as in "
                    f'`secret = {{ file = ".remit/secrets/{name}" }}`'
                )

    def _from_environment(self, variable: str) -> str:
        text = self._environ.get(variable)
        if text is None:
            raise ConfigError(f"environment variable `{variable}` is not set; set it", code="secret_unavailable")
        return text

    def _from_file(self, path: Path) -> str:
        data = read_private(path)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = None  # raised below, where the error can't carry the content along
        if text is None:
            del data
            raise ConfigError(f"`{path}` is not UTF-8 text; store it as text", code="secret_unavailable")
        return text.removesuffix("\n").removesuffix("\r")

    def _from_keyring(self, entry: str) -> str:
        service, _, user = entry.rpartition("/")
        if not service or not user:
            raise ConfigError(f"`{entry}` does not name a keyring entry; write `service/user`")
        text = self._keyring(service, user)
        if text is None:
            raise ConfigError(
                f"the keyring has no entry `{entry}`; add it with `keyring set {service} {user}`",
                code="secret_unavailable",
            )
        return text
