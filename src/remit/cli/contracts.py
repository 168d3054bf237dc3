"""`remit init`, `check`, `schema`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from remit.cli.terminal import JsonOption, ProjectOption, console, fail, print_json
from remit.errors import RemitError


class SchemaName(StrEnum):
    """What there is an editor's schema of."""

    CONTRACT = "contract"
    PROJECT = "project"


def init(
    name: Annotated[str, typer.Argument(help="Name of the first contract.")] = "my-workflow",
    folder: Annotated[Path, typer.Option("--dir", "-d", help="Where; must not hold a project yet.")] = Path(),
) -> None:
    """Make a small project that runs: a contract, a tool, a policy with its tests, a workflow.

    Example: remit init it-tickets --dir my-agents
    """
    from remit.contracts.scaffold import init_project

    try:
        init_project(folder, name)
    except RemitError as error:
        fail(error)
    where = "" if folder == Path() else f"cd {folder} && "
    console().print(f"made contract [bold]{name}[/] in {folder.resolve()}")
    console().print(f"try: {where}remit check && remit policy test {name} && remit run {name} '{{\"text\": \"hello\"}}'")


def check(json: JsonOption = False, project: ProjectOption = None) -> None:
    """Find every problem of remit.toml and of all contracts, with file, line and a suggestion."""
    from remit.contracts.check import check_project, project_tools
    from remit.contracts.problems import errors, render, render_json
    from remit.project import find_project

    try:
        problems = check_project(find_project(project), project_tools)
    except RemitError as error:
        fail(error)
    if json:
        typer.echo(render_json(problems))
    else:
        typer.echo(render(problems))
    raise typer.Exit(1 if errors(problems) else 0)


def schema(
    of: Annotated[SchemaName, typer.Argument(help="Which file's schema.")] = SchemaName.CONTRACT,
) -> None:
    """Print the JSON Schema of contract.yaml or remit.toml, so that editors complete and check them."""
    from remit.contracts.schema import contract_schema
    from remit.project import project_schema

    print_json(contract_schema() if of is SchemaName.CONTRACT else project_schema())
