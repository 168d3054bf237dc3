"""`remit principal`, `token`, `keys rotate`, `keys revoke`, `keys jwks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.terminal import (
    JsonTimesOption,
    ProjectOption,
    clock_time,
    line,
    print_json,
    print_lines,
    print_text,
    reporting,
    say,
    width,
    with_remit,
)

if TYPE_CHECKING:
    from remit.app import Remit

principals = typer.Typer(help="List, enable and disable who may act.", no_args_is_help=True, rich_markup_mode=None)
keys = typer.Typer(help="Rotate, revoke and print the keys that sign tokens.", no_args_is_help=True, rich_markup_mode=None)
PrincipalArgument = Annotated[
    str, typer.Argument(metavar="PRINCIPAL", help="`agent/<tenant>/<contract>` or `person/<id>`.", show_default=False)
]
ByOption = Annotated[
    str | None,
    typer.Option("--as", metavar="PERSON", help="Who does it: a person of remit.toml; left out, `system` is on record."),
]
WhyOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept on record.", show_default=False)]


@principals.command("list")
def list_principals(json: JsonTimesOption = False, project: ProjectOption = None) -> None:
    """List who may act, with roles and state.

    The service principals of contracts, and the people of remit.toml.
    """

    async def use(remit: Remit) -> list[dict[str, Any]]:
        for folder in remit.project.contracts:
            remit.program(folder.name)
        return [
            {
                "principal": found.principal,
                "kind": str(found.kind),
                "enabled": found.enabled,
                "roles": _roles(remit, found.principal),
                "updated_at": found.updated_us,
            }
            for found in remit.principals.list(remit.tenant)
        ]

    found = with_remit(project, use)
    if json:
        print_json(found)
        return
    from remit.cli.layout import table

    rows = [
        [
            line(row["principal"]),
            line(("enabled", "green") if row["enabled"] else ("disabled", "red")),
            line(clock_time(row["updated_at"])),
            line(" ".join(row["roles"])),
        ]
        for row in found
    ]
    print_lines(table(["principal", "state", "since (UTC)", "roles"], rows, width(), drop=["since (UTC)"]))


def _roles(remit: Remit, principal: str) -> list[str]:
    person = remit.person(principal)
    return sorted(person.roles) if person else []


@principals.command("disable")
def disable(
    principal: PrincipalArgument, by: ByOption = None, reason: WhyOption = "", project: ProjectOption = None
) -> None:
    """Disable a principal.

    Its next call is denied, whatever token it holds. That it was disabled is on the register.
    """

    async def use(remit: Remit) -> None:
        from remit.cli.lookup import storable

        await remit.administration.disable(storable(principal), token=_token(remit, by), reason=reason)

    with_remit(project, use)
    with reporting(f"{principal} is disabled"):
        say(f"{principal} ", ("disabled", "red"))


@principals.command("enable")
def enable(
    principal: PrincipalArgument, by: ByOption = None, reason: WhyOption = "", project: ProjectOption = None
) -> None:
    """Enable a principal again. That it was is on the register."""

    async def use(remit: Remit) -> None:
        from remit.cli.lookup import storable

        await remit.administration.enable(storable(principal), token=_token(remit, by), reason=reason)

    with_remit(project, use)
    with reporting(f"{principal} is enabled"):
        say(f"{principal} ", ("enabled", "green"))


def _token(remit: Remit, by: str | None) -> str | None:
    from remit.cli.lookup import find_person

    return None if by is None else remit.person_token(find_person(remit, by))


def token(
    person: Annotated[str, typer.Argument(metavar="PERSON", help="A person declared in remit.toml.", show_default=False)],
    project: ProjectOption = None,
) -> None:
    """Issue a short-lived token for a person.

    For scripts that decide cases. An agent's tokens are minted for one run each, by the engine; there is no way to ask for one here.
    """

    async def use(remit: Remit) -> str:
        from remit.cli.lookup import find_person

        return remit.person_token(find_person(remit, person))

    print_text(with_remit(project, use))


@keys.command("rotate")
def rotate(project: ProjectOption = None) -> None:
    """Sign with a new key from now on.

    Tokens of the old one stay valid for their lifetime.
    """

    async def use(remit: Remit) -> str:
        remit.keys.prune(remit.clock())
        return remit.keys.rotate(remit.clock())

    key = with_remit(project, use)
    with reporting(f"key {key} signs from now on"):
        say(f"signing with key {key}")


@keys.command("revoke")
def revoke(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="Its `kid`, or the start of it; `remit keys jwks` has them.", show_default=False)
    ],
    reason: WhyOption,
    by: ByOption = None,
    project: ProjectOption = None,
) -> None:
    """Revoke a key at once, as when it leaked.

    No token that it signed verifies any more; if it was the one that signs, a new one signs from now on. That it was
    revoked is on the register, and `remit verify` finds calls that it lets in afterwards.
    """

    async def use(remit: Remit) -> tuple[str, str]:
        return await remit.administration.revoke(key, token=_token(remit, by), reason=reason)

    revoked, active = with_remit(project, use)
    with reporting(f"key {revoked} is revoked"):
        say(f"key {revoked} is ", ("revoked", "red"), f"; signing with key {active}")


@keys.command("jwks")
def jwks(project: ProjectOption = None) -> None:
    """Print the public keys as a JSON Web Key Set.

    For whoever must verify our tokens.
    """

    async def use(remit: Remit) -> Any:
        return remit.keys.public_jwks(remit.clock())

    print_json(with_remit(project, use))
