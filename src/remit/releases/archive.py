"""The archive of releases: what each release that ever opened a run was made of, kept by its content.

The bundle stands in the table `releases`, the texts that it names (code, tool specs) in `sources`, encrypted under the
master key: code from there may run again in a replay, so nobody without the key may put in any.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec
from sqlalchemy import select, text

from remit.errors import StorageError
from remit.gate.authority import Authority
from remit.journal.vault import Vault
from remit.storage.database import Database, storage_errors
from remit.storage.schema import releases, sources
from remit.values import Json, decode, digest, encode


class ArchivedRelease(msgspec.Struct, frozen=True, kw_only=True):
    """A release as it was kept. `specs`: tool name → digest, models among them; empty where no texts were kept."""

    release: str
    bundle: Mapping[str, Any]
    specs: Mapping[str, str]


class ReleaseArchive:
    """Keeps releases and gives them back. What it gives back is what it was given, or an error."""

    def __init__(self, *, database: Database, vault: Vault, tenant: str) -> None:
        self._database = database
        self._vault = vault
        self._tenant = tenant

    def keep(self, authority: Authority, bundle: Json, texts: Mapping[str, bytes], now_us: int) -> None:
        """Keep a release and the texts that it names, by digest; what is kept already stays as it is."""
        release = authority.release
        specs = {name: tool.spec for name, tool in authority.tools.items()}
        kept = {**texts, **{spec.digest: encode(spec.plain) for spec in specs.values()}}
        manifest = encode({"specs": {name: spec.digest for name, spec in specs.items()}})
        with storage_errors("keep the release"), self._database.engine.begin() as connection:
            if connection.execute(select(sources.c.digest).where(sources.c.digest == release)).first() is not None:
                return
            row = {
                "release": release,
                "tenant": self._tenant,
                "contract": authority.contract.contract,
                "author": authority.contract.author or "",
                "at": now_us,
                "bundle": encode(bundle),
            }
            connection.execute(_KEEP_RELEASE, row)
            for name, data in {**kept, release: manifest}.items():
                connection.execute(_KEEP_SOURCE, {"digest": name, "text": self._vault.seal_source(name, data)})

    def get(self, release: str) -> ArchivedRelease | None:
        """A release, or `None` where it was not kept. Raises `StorageError` (code `record_corrupt`)."""
        query = select(releases.c.bundle).where(releases.c.release == release, releases.c.tenant == self._tenant)
        with storage_errors("read the release"), self._database.engine.connect() as connection:
            found = connection.execute(query).scalar()
        if found is None:
            return None
        bundle = decode(bytes(found))
        if digest(bundle) != release:
            raise StorageError(f"release `{release[:12]}` is kept otherwise than it was", code="record_corrupt")
        manifest = self._sealed([release]).get(release)
        specs: dict[str, str] = {} if manifest is None else cast("dict[str, Any]", decode(manifest))["specs"]
        return ArchivedRelease(release=release, bundle=cast("dict[str, Any]", bundle), specs=specs)

    def beginning_with(self, start: str) -> list[str]:
        """The digests of the kept releases that begin so."""
        query = select(releases.c.release).where(
            releases.c.tenant == self._tenant, releases.c.release.startswith(start, autoescape=True)
        )
        with storage_errors("read the releases"), self._database.engine.connect() as connection:
            return list(connection.execute(query.order_by(releases.c.release)).scalars())

    def texts(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Those texts that were kept, by digest. Raises `StorageError` (code `record_corrupt`)."""
        found = self._sealed(list(dict.fromkeys(digests)))
        for name, data in found.items():
            if hashlib.sha256(data).hexdigest() != name:
                raise StorageError(f"source `{name[:12]}` is kept otherwise than it was", code="record_corrupt")
        return found

    def _sealed(self, names: list[str]) -> dict[str, bytes]:
        query = select(sources.c.digest, sources.c.text).where(sources.c.digest.in_(names))
        with storage_errors("read the release"), self._database.engine.connect() as connection:
            rows = connection.execute(query).all()
        return {name: self._vault.open_source(name, bytes(data)) for name, data in rows}


_KEEP_RELEASE = text(
    "INSERT INTO releases (release, tenant, contract, author, created_at, bundle)"
    " VALUES (:release, :tenant, :contract, :author, :at, :bundle) ON CONFLICT DO NOTHING"
)
_KEEP_SOURCE = text("INSERT INTO sources (digest, text) VALUES (:digest, :text) ON CONFLICT DO NOTHING")
