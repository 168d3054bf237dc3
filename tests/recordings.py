"""Recordings of old versions (`histories/`), kept for ever: how a run gets into one, and out of it again.

A history is a folder: `project/`, the files that are to replay it; `events.jsonl`, the run's events as exported text, with
their originals; `release.json`, the release that it ran under, with the texts that it names; `history.json`, what it is and
what a replay must come to. The run and its data are made up, so that nothing in there is anybody's secret.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from remit import Remit
from remit.identity.keys import master_key
from remit.journal.events import leaf_hash
from remit.journal.vault import Vault
from remit.storage import schema
from remit.values import digest, encode

HISTORIES = Path(__file__).parent / "histories"
SALT = 16


def names() -> list[str]:
    return sorted(path.name for path in HISTORIES.iterdir() if (path / "history.json").is_file())


def about(name: str) -> dict[str, Any]:
    return json.loads((HISTORIES / name / "history.json").read_text())


def keep(folder: Path, run: str, name: str, expected: dict[str, Any]) -> None:
    """Make a history of a run of the project in `folder`, as the project is now. What is there already stays for ever."""
    home = HISTORIES / name
    home.mkdir(parents=True)
    keys = folder / ".remit" / "keys"
    with_ledger = shutil.ignore_patterns(".remit", "remit.db*", "ledger", "tries", "__pycache__")
    shutil.copytree(folder, home / "project", ignore=with_ledger)
    settings = home / "project" / "remit.toml"
    lines = ["database = {database}" if line.startswith("database") else line for line in settings.read_text().splitlines()]
    settings.write_text("\n".join(lines) + "\n")
    (home / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in _exported(folder, run)))
    (home / "release.json").write_text(json.dumps(_release(folder, run), indent=1, sort_keys=True) + "\n")
    pseudonyms = (keys / "pseudonym.key").read_text()
    (home / "history.json").write_text(json.dumps({**expected, "pseudonym_key": pseudonyms}, indent=1) + "\n")


def _exported(folder: Path, run: str) -> list[dict[str, Any]]:
    remit = Remit(folder)
    keys = remit.journal.reader.keys(run)
    query = schema.events.select().where(schema.events.c.run == run).order_by(schema.events.c.n)
    made: list[dict[str, Any]] = []
    with remit.database.engine.connect() as connection:
        for row in connection.execute(query):
            plain = keys.decrypt_body(bytes(row.body), run, row.n)
            sealed = None if row.sealed is None else keys.decrypt_sealed(bytes(row.sealed), run, row.n)
            made.append({"header": bytes(row.header).decode(), **_halves("body", plain), **_halves("sealed", sealed)})
    remit.database.close()
    return made


def _halves(name: str, salted: bytes | None) -> dict[str, str | None]:
    if salted is None:
        return {f"{name}_salt": None, name: None}
    return {f"{name}_salt": salted[:SALT].hex(), name: salted[SALT:].decode()}


def _salted(event: dict[str, Any], name: str) -> bytes | None:
    return None if event[name] is None else bytes.fromhex(event[f"{name}_salt"]) + event[name].encode()


def _release(folder: Path, run: str) -> dict[str, Any]:
    remit = Remit(folder)
    release = remit.journal.reader.events(run)[0].header.refs["release"]
    kept = remit.release_archive.get(release)
    assert kept is not None
    named = [*kept.specs.values(), *kept.bundle["code"].values()]
    named += [code["source"] for code in kept.bundle["tool_code"].values() if code["source"]]
    texts = {name: text.decode() for name, text in remit.release_archive.texts(named).items()}
    remit.database.close()
    return {"release": release, "bundle": kept.bundle, "specs": dict(kept.specs), "texts": texts}


def load(name: str, folder: Path, database: str) -> str:
    """Put a history into a fresh project in `folder`, on an empty database; its run."""
    home = HISTORIES / name
    shutil.copytree(home / "project", folder)
    settings = folder / "remit.toml"
    url = "sqlite:remit.db" if database.startswith("sqlite:") else database
    settings.write_text(settings.read_text().replace("{database}", json.dumps(url)))
    for secret in folder.glob("*.secret"):
        secret.chmod(0o600)
    keys = folder / ".remit" / "keys"
    (folder / ".remit").mkdir(mode=0o700)
    keys.mkdir(mode=0o700)
    (keys / "pseudonym.key").touch(mode=0o600)
    (keys / "pseudonym.key").write_text(about(name)["pseudonym_key"])
    remit = Remit(folder)
    try:
        return _put(remit, Vault(master_key(keys).reveal()), home)
    finally:
        remit.database.close()


def _put(remit: Remit, vault: Vault, home: Path) -> str:
    exported = [json.loads(line) for line in (home / "events.jsonl").read_text().splitlines()]
    headers = [json.loads(event["header"]) for event in exported]
    opened, run = json.loads(exported[0]["body"]), headers[0]["run"]
    keys, wrapped = vault.create(run)
    rows: list[dict[str, Any]] = []
    for event, header in zip(exported, headers, strict=True):
        sealed, data = _salted(event, "sealed"), event["header"].encode()
        rows.append(
            {
                **{column: header[column] for column in ("tenant", "run", "n", "type", "at")},
                "hash": leaf_hash(data),
                "header": data,
                "body": keys.encrypt_body(_salted(event, "body") or b"", run, header["n"]),
                "sealed": None if sealed is None else keys.encrypt_sealed(sealed, run, header["n"]),
            }
        )
    closed = next((header for header in headers if header["type"] == "run.closed"), None)
    row = {
        "run": run,
        "tenant": headers[0]["tenant"],
        "contract": opened["contract"],
        "release": headers[0]["refs"]["release"],
        "principal": headers[0]["actor"],
        "status": "held" if closed is None else "closed",
        "outcome": None if closed is None else closed["verdict"],
        "request_key": "history",
        "opened_at": headers[0]["at"],
        "updated_at": headers[-1]["at"],
    }
    with remit.database.engine.begin() as connection:
        connection.execute(insert(schema.run_keys), {"run": run, "body_key": wrapped.body, "sealed_key": wrapped.sealed})
        connection.execute(insert(schema.events), rows)
        connection.execute(insert(schema.runs), row)
        for table, values in _released(vault, home, headers[0]["tenant"], opened["contract"]):
            connection.execute(insert(table), values)
    return run


def _released(vault: Vault, home: Path, tenant: str, contract: str) -> list[tuple[Any, Any]]:
    release = json.loads((home / "release.json").read_text())
    assert digest(release["bundle"]) == release["release"]
    texts = {name: text.encode() for name, text in release["texts"].items()}
    texts[release["release"]] = encode({"specs": release["specs"]})
    row = {"release": release["release"], "tenant": tenant, "contract": contract, "author": "", "created_at": 0}
    sources = [{"digest": name, "text": vault.seal_source(name, text)} for name, text in texts.items()]
    return [(schema.releases, {**row, "bundle": encode(release["bundle"])}), (schema.sources, sources)]
