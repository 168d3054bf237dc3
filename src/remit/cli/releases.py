"""`remit release show`, `approve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.terminal import JsonTimesOption, ProjectOption, clock_time, print_json, reporting, say, with_remit

if TYPE_CHECKING:
    from remit.app import Remit

app = typer.Typer(help="Show and approve what may run.", no_args_is_help=True, rich_markup_mode=None)
ContractArgument = Annotated[str, typer.Argument(metavar="CONTRACT", help="Name of the contract.", show_default=False)]


@app.command("show")
def show(contract: ContractArgument, json: JsonTimesOption = False, project: ProjectOption = None) -> None:
    """Show a contract's release and who approved it."""

    async def use(remit: Remit) -> dict[str, Any]:
        release = remit.program(contract).authority.release
        found = remit.releases.get(release)
        asked = remit.project.releases.approval
        return {
            "contract": contract,
            "release": release,
            "approval": asked,
            "approved_by": found.approved_by if found else None,
            "approved_at": found.approved_at if found else None,
        }

    row = with_remit(project, use)
    if json:
        print_json(row)
        return
    said = "needs no approval" if row["approval"] is None else f"waits for {row['approval']}"
    if row["approved_by"]:
        said = f"approved by {row['approved_by']} at {clock_time(row['approved_at'])} UTC"
    say(f"{contract} is at release ", (row["release"][:12], "bold"), f", {said}")


@app.command("approve")
def approve(
    contract: ContractArgument,
    by: Annotated[
        str,
        typer.Option(
            "--as", metavar="PERSON", help="Who approves: a person declared in remit.toml.", show_default=False
        ),
    ],
    project: ProjectOption = None,
) -> None:
    """Approve the release that a contract is at now.

    Never by the contract's own author.
    """

    async def use(remit: Remit) -> None:
        from remit.cli.lookup import find_person

        program = remit.program(contract)
        token = remit.person_token(find_person(remit, by))
        found = await remit.releases.approve(program.authority, program.bundle, token=token, now_us=remit.clock())
        with reporting(f"release {found.release[:12]} is approved"):
            say(f"release {found.release[:12]} of {contract} ", ("approved", "green"), f" by {found.approved_by}")

    with_remit(project, use)
