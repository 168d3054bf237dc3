"""`remit principal`, `token`, `keys`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli.terminal import JsonOption, ProjectOption, clock_time, console, print_json, with_remit

if TYPE_CHECKING:
    from remit.app import Remit

principals = typer.Typer(help="Who may act.", no_args_is_help=True, rich_markup_mode=None)
keys = typer.Typer(help="The keys that sign tokens.", no_args_is_help=True, rich_markup_mode=None)
PrincipalArgument = Annotated[
    str, typer.Argument(help="`agent/<tenant>/<contract>` or `person/<id>`.", show_default=False)
]


@principals.command("list")
def list_principals(json: JsonOption = False, project: ProjectOption = None) -> None:
    """List the service principals of contracts and the people of remit.toml, with roles and state."""

    async def use(remit: Remit) -> list[dict[str, Any]]:
        for folder in remit.project.contracts:
            remit.program(folder.name)
        return [
            {
                "principal": found.principal,
                "kind": str(found.kind),
                "enabled": found.enabled,
                "roles": _roles(remit, found.principal),
                "updated": clock_time(found.updated_us),
            }
            for found in remit.principals.list(remit.tenant)
        ]

    found = with_remit(project, use)
    if json:
        print_json(found)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("principal", "state", "roles", "since (UTC)"):
        table.add_column(name)
    for row in found:
        state = "[green]enabled[/]" if row["enabled"] else "[red]disabled[/]"
        table.add_row(row["principal"], state, " ".join(row["roles"]), row["updated"])
    console().print(table)


def _roles(remit: Remit, principal: str) -> list[str]:
    person = remit.person(principal)
    return sorted(person.roles) if person else []


@principals.command("disable")
def disable(principal: PrincipalArgument, project: ProjectOption = None) -> None:
    """Disable a principal: its next call is denied, whatever token it holds."""

    async def use(remit: Remit) -> None:
        remit.principals.disable(principal, remit.clock())

    with_remit(project, use)
    console().print(f"{principal} [red]disabled[/]")


@principals.command("enable")
def enable(principal: PrincipalArgument, project: ProjectOption = None) -> None:
    """Enable a principal again."""

    async def use(remit: Remit) -> None:
        remit.principals.enable(principal, remit.clock())

    with_remit(project, use)
    console().print(f"{principal} [green]enabled[/]")


def token(
    person: Annotated[str, typer.Argument(help="A person declared in remit.toml.", show_default=False)],
    project: ProjectOption = None,
) -> None:
    """Issue a short-lived token for a person, for scripts that decide cases.

    An agent's tokens are minted for one run each, by the engine; there is no way to ask for one here.
    """

    async def use(remit: Remit) -> str:
        return remit.person_token(person.removeprefix("person/"))

    typer.echo(with_remit(project, use))


@keys.command("rotate")
def rotate(project: ProjectOption = None) -> None:
    """Sign with a new key from now on; tokens of the old one stay valid for their lifetime."""

    async def use(remit: Remit) -> str:
        remit.keys.prune(remit.clock())
        return remit.keys.rotate(remit.clock())

    console().print(f"signing with key {with_remit(project, use)}")


@keys.command("jwks")
def jwks(project: ProjectOption = None) -> None:
    """Print the public keys as a JSON Web Key Set, for whoever must verify our tokens."""

    async def use(remit: Remit) -> Any:
        return remit.keys.public_jwks(remit.clock())

    print_json(with_remit(project, use))
