"""`remit verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from remit.errors import RemitError
from remit.terminal import JsonOption, ProjectOption, say_error


def verify(
    since: Annotated[
        list[str] | None,
        typer.Option(
            "--from", metavar="FILE", help="Checkpoints that you hold, from elsewhere; repeatable.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
    project: ProjectOption = None,
) -> None:
    """Verify the whole record: events, chains, tree, checkpoints.

    With a reader that shares no code with what wrote it (`remit-verify`, which also takes an exported file). Exits with
    0 where the record is verified, 1 with findings, 2 where it can't be read.
    """
    from remit_verify.command import main

    arguments = [str(_project_folder(project))]
    for name in since or ():
        arguments += ["--from", name]
    raise typer.Exit(main([*arguments, "--json"] if json else arguments))


def _project_folder(project: Path | None) -> Path:
    """The project's folder, its database within reach. It is not opened: it may be what is wrong."""
    import os

    from remit.contracts.paths import find_project
    from remit.contracts.project import load_project
    from remit.identity.secrets import SecretStore

    try:
        found = load_project(find_project(project))
        if found.project.secret is not None:
            password = SecretStore(found.folder).resolve("database", found.project.secret)
            # libpq takes it from there; on a command line others would read it.
            os.environ["PGPASSWORD"] = password.reveal()
    except RemitError as error:
        say_error(error)
        raise typer.Exit(2) from error
    return found.folder
