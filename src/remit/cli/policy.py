"""`remit policy show`, `test`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from remit.terminal import (
    JsonOption,
    ProjectOption,
    cedar_text,
    console,
    print_json,
    print_text,
    say,
    with_remit,
    writing,
)

if TYPE_CHECKING:
    from remit.app import Remit

app = typer.Typer(help="Show and test the policy that decides.", no_args_is_help=True, rich_markup_mode=None)
ContractArgument = Annotated[str, typer.Argument(metavar="CONTRACT", help="Name of the contract.", show_default=False)]


@app.command("show")
def show(contract: ContractArgument, project: ProjectOption = None) -> None:
    """Print the whole policy of a contract as Cedar.

    Its grants, compiled, and its own rules.
    """

    async def use(remit: Remit) -> str:
        return remit.program(contract).authority.policy.text

    text = cedar_text(with_remit(project, use))
    if not console().is_terminal:
        print_text(text)
        return
    from rich.syntax import Syntax

    with writing():
        console().print(Syntax(text, "java", theme="ansi_dark", background_color="default", word_wrap=True))


@app.command("test")
def run_tests(contract: ContractArgument, json: JsonOption = False, project: ProjectOption = None) -> None:
    """Run the policy cases of policy_tests.yaml."""

    async def use(remit: Remit) -> list[object]:
        from remit.checking.policy_tests import run_policy_tests

        folder = remit.project.contract_folder(contract)
        authority = remit.program(contract).authority
        specs = {name: tool.spec for name, tool in authority.tools.items()}
        return list(run_policy_tests(folder / "policy_tests.yaml", authority.policy, specs))

    results = with_remit(project, use)
    _report(results, json)


def _report(results: list[object], json: bool) -> None:
    import msgspec

    rows = [msgspec.to_builtins(result) for result in results]
    failed = [row for row in rows if not row["passed"]]
    if json:
        print_json(rows)
    else:
        for row in rows:
            say(("ok  ", "green") if row["passed"] else ("FAIL", "red"), f" {row['name']}")
            if not row["passed"]:
                say(" " * 7, row["message"])
        say(f"{len(rows)} case{'' if len(rows) == 1 else 's'}, {len(failed)} failed")
    raise typer.Exit(1 if failed else 0)
