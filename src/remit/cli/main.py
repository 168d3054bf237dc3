"""`remit`: the commands and their groups."""

from __future__ import annotations

import sys

import typer

from remit.cli import cases, contracts, demo, identity, policy, releases, runs

app = typer.Typer(
    name="remit",
    help="An execution layer for AI agents that act on systems of record.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Start with `remit demo`, or `remit init` in an empty folder.",
)
app.command("demo")(demo.demo)
app.command("init")(contracts.init)
app.command("check")(contracts.check)
app.command("schema")(contracts.schema)
app.command("run")(runs.run)
app.command("work")(runs.work)
app.command("runs")(runs.list_runs)
app.command("show")(runs.show)
app.command("cases")(cases.list_cases)
app.command("case")(cases.show_case)
app.command("approve")(cases.approve)
app.command("deny")(cases.deny)
app.command("resolve")(cases.resolve)
app.command("token")(identity.token)
app.add_typer(policy.app, name="policy")
app.add_typer(releases.app, name="release")
app.add_typer(identity.principals, name="principal")
app.add_typer(identity.keys, name="keys")


@app.command("version")
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(f"remit {installed('remit')}")


def main() -> None:
    """The entry point. Interrupted by a person, it exits with 130 and without a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
