"""`remit init`, `check`, `schema`."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from remit.errors import RemitError
from remit.terminal import JsonOption, ProjectOption, fail, print_json, print_text, printable, say, visible_json


class SchemaName(StrEnum):
    """What there is an editor's schema of."""

    CONTRACT = "contract"
    PROJECT = "project"
    EVENT = "event"


def init(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Name of the first contract.")] = "my-workflow",
    folder: Annotated[
        Path, typer.Option("--dir", "-d", metavar="FOLDER", help="Where; must not hold a project yet.")
    ] = Path(),
) -> None:
    """Make a small project that runs.

    A contract, a tool, a policy with its tests, and a workflow.
    """
    from remit.contracts.scaffold import init_project

    try:
        init_project(folder, name)
    except RemitError as error:
        fail(error)
    where = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    say("made contract ", (name, "bold"), f" in {folder.resolve()}")
    say(f"try: {where}remit check && remit policy test {name} && remit run {name} '{{\"text\": \"hello\"}}'")


def check(json: JsonOption = False, project: ProjectOption = None) -> None:
    """Find every problem of remit.toml and all contracts.

    Each with file, line and a suggestion.
    """
    from remit.checking.check import check_project, project_tools
    from remit.contracts.paths import find_project
    from remit.contracts.problems import errors, render, render_json

    try:
        problems = check_project(find_project(project), project_tools)
    except RemitError as error:
        fail(error)
    if json:
        print_text(visible_json(render_json(problems)))
    else:
        print_text("\n".join(map(printable, render(problems).split("\n"))))
    raise typer.Exit(1 if errors(problems) else 0)


def schema(
    of: Annotated[SchemaName, typer.Argument(help="Of which of them.")] = SchemaName.CONTRACT,
) -> None:
    """Print the JSON Schema of a file or an event.

    With it, editors complete and check the files, and whoever takes in events knows their form.
    """
    from remit.contracts.project_file import project_schema
    from remit.contracts.schema import contract_schema
    from remit.export.lines import event_schema

    schemas = {
        SchemaName.CONTRACT: contract_schema,
        SchemaName.PROJECT: project_schema,
        SchemaName.EVENT: event_schema,
    }
    print_json(schemas[of](), indent=2)
