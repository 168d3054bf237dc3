"""What is written to the tables of memory. Each change counts up `memory_changes`, in the same transaction."""

from __future__ import annotations

from typing import Any

from remit.memory.documents import NewVersion
from remit.storage.writer import Statement

_WHERE = "tenant = :tenant AND document = :document"
_NEWEST = f"(SELECT MAX(version) FROM memory_versions WHERE {_WHERE} AND recalled_at IS NULL)"  # noqa: S608 - our own text


def changed(tenant: str) -> Statement:
    """Something is not as it was."""
    return Statement(
        sql="INSERT INTO memory_changes (tenant, changes) VALUES (:tenant, 1)"
        " ON CONFLICT (tenant) DO UPDATE SET changes = memory_changes.changes + 1",
        params={"tenant": tenant},
    )


def new_document(tenant: str, new: NewVersion, *, region: str, at: int, body_key: bytes | None) -> list[Statement]:
    """A document that is not there yet; where it is, the transaction collides."""
    about = {"tenant": tenant, "document": new.document}
    return [
        Statement(
            sql="INSERT INTO memory_documents (tenant, document, owner, region, created_at)"
            " VALUES (:tenant, :document, :owner, :region, :at)",
            params={**about, "owner": new.owner, "region": region, "at": at},
        ),
        Statement(
            sql="INSERT INTO memory_keys (tenant, document, body_key) VALUES (:tenant, :document, :body_key)",
            params={**about, "body_key": body_key},
        ),
    ]


def new_readers(tenant: str, new: NewVersion) -> list[Statement]:
    """Who may read the document from now on, all of its versions."""
    about = {"tenant": tenant, "document": new.document}
    return [
        Statement(sql=f"DELETE FROM memory_readers WHERE {_WHERE}", params=about),  # noqa: S608 - our own text
        *(
            Statement(
                sql="INSERT INTO memory_readers (tenant, reader, document) VALUES (:tenant, :reader, :document)",
                params={**about, "reader": reader},
            )
            for reader in new.readers
        ),
    ]


def new_version(tenant: str, new: NewVersion, version: int, values: dict[str, Any]) -> list[Statement]:
    """A version, which is the current one from now on; where it or its key is there already, the transaction collides.

    The transaction fails where the document has been forgotten.
    """
    about = {"tenant": tenant, "document": new.document, "version": version}
    row = {
        **about,
        "label": new.label,
        "classes": " ".join(new.classes),
        "source": new.source,
        "valid_until": new.valid_until,
        "run": new.run,
        "step": new.step,
        "key": new.key,
        **values,
    }
    names = list(row)
    return [
        Statement(
            sql=f"INSERT INTO memory_versions ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})",  # noqa: S608 - our own names
            params=row,
        ),
        Statement(
            sql=f"UPDATE memory_documents SET current = :version WHERE {_WHERE} AND forgotten_at IS NULL",  # noqa: S608 - our own text
            params=about,
            changes=1,
        ),
        changed(tenant),
    ]


def recall(tenant: str, document: str, version: int | None, at: int) -> list[Statement]:
    """Never give out a version any more, or any there is; the newest of the others is the current one."""
    about = {"tenant": tenant, "document": document}
    which, chosen = ("", {}) if version is None else (" AND version = :version", {"version": version})
    return [
        Statement(
            sql=f"UPDATE memory_versions SET recalled_at = :at WHERE {_WHERE}{which} AND recalled_at IS NULL",  # noqa: S608 - our own text
            params={**about, **chosen, "at": at},
        ),
        Statement(sql=f"UPDATE memory_documents SET current = {_NEWEST} WHERE {_WHERE}", params=about),  # noqa: S608 - our own text
        changed(tenant),
    ]


def forget(tenant: str, document: str, at: int) -> list[Statement]:
    """Destroy a document's key and what was encrypted under it; the transaction fails where somebody was faster."""
    about = {"tenant": tenant, "document": document}
    return [
        Statement(
            sql=f"UPDATE memory_documents SET forgotten_at = :at, current = NULL WHERE {_WHERE} AND forgotten_at IS NULL",  # noqa: S608 - our own text
            params={**about, "at": at},
            changes=1,
        ),
        Statement(sql=f"UPDATE memory_keys SET body_key = NULL WHERE {_WHERE}", params=about),  # noqa: S608 - our own text
        Statement(
            sql=f"UPDATE memory_versions SET content = NULL, findable = NULL, recalled_at = COALESCE(recalled_at, :at)"  # noqa: S608 - our own text
            f" WHERE {_WHERE}",
            params={**about, "at": at},
        ),
        Statement(sql=f"DELETE FROM memory_readers WHERE {_WHERE}", params=about),  # noqa: S608 - our own text
        changed(tenant),
    ]


def embedded_anew(row: int, embedding: str, findable: bytes) -> Statement:
    """A version's words and vectors, by another embedding."""
    return Statement(
        sql="UPDATE memory_versions SET embedding = :embedding, findable = :findable WHERE id = :row AND content IS NOT NULL",
        params={"row": row, "embedding": embedding, "findable": findable},
    )
