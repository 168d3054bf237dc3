"""`remit checkpoint`, `prove`, `publish`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli.identity import ByOption
from remit.cli.runs import RunArgument
from remit.terminal import (
    JsonOption,
    JsonTimesOption,
    ProjectOption,
    line,
    print_json,
    print_lines,
    print_text,
    say,
    with_remit,
)

if TYPE_CHECKING:
    from remit.app import Remit


def checkpoint(
    after_restore: Annotated[
        bool,
        typer.Option(
            "--after-restore", help="The database was restored from an older backup on purpose: sign on from there."
        ),
    ] = False,
    by: ByOption = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="With --after-restore: why; kept on record.")] = "",
    json: JsonTimesOption = False,
    project: ProjectOption = None,
) -> None:
    """Print the newest signed checkpoint of the record.

    Give it to somebody outside: whoever has it can tell later whether anything before it was changed
    (`remit verify --from FILE`).
    """
    if after_restore != bool(reason):
        raise typer.BadParameter("give `--after-restore` and `--reason` together")

    async def use(remit: Remit) -> dict[str, Any]:
        if after_restore:
            from remit.cli.lookup import find_person

            token = None if by is None else remit.person_token(find_person(remit, by))
            aside = await remit.administration.restored(remit.sequencer, token=token, reason=reason)
            if aside is not None:
                print_lines([line(f"what was published before is kept in {aside}")], stderr=True)
        head = await remit.sequencer.integrate(publish=True)
        keys = (remit.project.private / "keys" / "record.pub").read_text().split()
        return {"size": head.size, "root": head.root.hex(), "at": head.at, "note": head.note, "keys": keys}

    found = with_remit(project, use)
    if json:
        print_json(found)
    elif not found["note"]:
        say(("nothing is on record yet", "dim"))
    else:
        print_text(found["note"])


def prove(
    run: RunArgument,
    n: Annotated[
        int | None, typer.Argument(metavar="N", min=1, help="Which of its events; the last one by default.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the proof to a file.", show_default=False)
    ] = None,
    json: JsonOption = False,
    project: ProjectOption = None,
) -> None:
    """Prove that an event of a run is on record.

    The proof is a text of the form c2sp.org/tlog-proof: it holds against the checkpoint in it without the database.
    """

    async def use(remit: Remit) -> dict[str, Any]:
        from remit.cli.lookup import find
        from remit.journal.proofs import Proofs

        found = find(remit, "run", run)
        await remit.sequencer.integrate()
        last = n or remit.journal.reader.events(found)[-1].header.n
        proof = Proofs(remit.database, remit.tenant).inclusion(found, last)
        return {
            "run": found,
            "n": last,
            "index": proof.index,
            "size": proof.head.size,
            "header": proof.header.decode(),
            "proof": proof.text,
        }

    made = with_remit(project, use)
    if out is not None:
        out.write_text(made["proof"])
    if json:
        print_json(made)
    elif out is None:
        print_text(made["proof"])
    else:
        say(f"event {made['n']} of {made['run']} is leaf {made['index']} of {made['size']}; proof written to {out}")


def publish(
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen.")
    ] = "127.0.0.1:8780",
    project: ProjectOption = None,
) -> None:
    """Serve checkpoint and tree over HTTP.

    For those who watch the record. The form is that of c2sp.org/tlog-tiles: /checkpoint and /tile/…; only hashes are
    told, never what an event holds.
    """

    async def use(remit: Remit) -> None:
        from remit.cli.workers import stopped_by_signal

        stop = stopped_by_signal()
        async with serving(remit, listen) as size:
            where = f"http://{listen}/checkpoint"
            say(f"serving the tree of {size} events at {where}", (" · stop with Ctrl-C", "dim"))
            await stop.wait()

    with_remit(project, use)


@asynccontextmanager
async def serving(remit: Remit, listen: str) -> AsyncGenerator[int, None]:
    """Serve the tree over HTTP while the block lasts; gives its size at the start. Raises `ConfigError`."""
    import asyncio

    from remit.errors import ConfigError
    from remit.journal.proofs import Proofs
    from remit.journal.tile_server import TileServer

    host, _, port = listen.rpartition(":")
    try:
        server = TileServer((host.strip("[]") or "127.0.0.1", int(port)), Proofs(remit.database, remit.tenant))
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(f"can't listen on `{listen}`: {error}; name another `--listen HOST:PORT`") from error
    try:
        head = await remit.sequencer.integrate()
        answering = asyncio.get_running_loop().run_in_executor(None, server.serve_forever)
        try:
            yield head.size
        finally:
            server.shutdown()
            await answering
    finally:
        server.server_close()


