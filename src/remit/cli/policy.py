"""`remit policy show`, `test`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from remit.cli.terminal import JsonOption, ProjectOption, console, print_json, with_remit

if TYPE_CHECKING:
    from remit.app import Remit

app = typer.Typer(help="Read and test what decides.", no_args_is_help=True, rich_markup_mode=None)
ContractArgument = Annotated[str, typer.Argument(help="Name of the contract.", show_default=False)]


@app.command("show")
def show(contract: ContractArgument, project: ProjectOption = None) -> None:
    """Print the whole policy of a contract as Cedar: its grants, compiled, and its own rules."""

    async def use(remit: Remit) -> str:
        return remit.program(contract).authority.policy.text

    text = with_remit(project, use)
    if not console().is_terminal:
        typer.echo(text)
        return
    from rich.syntax import Syntax

    console().print(Syntax(text, "java", theme="ansi_dark", background_color="default", word_wrap=True))


@app.command("test")
def run_tests(contract: ContractArgument, json: JsonOption = False, project: ProjectOption = None) -> None:
    """Run the contract's table of policy cases, policy_tests.yaml."""

    async def use(remit: Remit) -> list[object]:
        from remit.policy.policy_tests import run_policy_tests

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
        out = console()
        for row in rows:
            word = "[green]ok[/]  " if row["passed"] else "[red]FAIL[/]"
            out.print(f"{word} {row['name']}" + ("" if row["passed"] else f"\n       {row['message']}"))
        out.print(f"{len(rows)} cases, {len(failed)} failed")
    raise typer.Exit(1 if failed else 0)
