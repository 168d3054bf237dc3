"""`remit`: the commands and their groups."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from remit.cli import (
    backtest,
    cases,
    checkpoints,
    contract,
    contracts,
    demo,
    exports,
    identity,
    imports,
    memory,
    models,
    policy,
    records,
    releases,
    replay,
    runs,
    undo,
    verify,
    workers,
)
from remit.errors import RemitError
from remit.terminal import print_text, say_error


class Panels(TyperGroup):
    """Lists the commands by panel. In plain text: a box around each costs time to draw, and room for the words."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[Any]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            panels.setdefault(str(command.rich_help_panel), []).append((name, command))
        wide = max(len(name) for listed in panels.values() for name, _ in listed)
        for panel, listed in panels.items():
            with formatter.section(panel):
                room = formatter.width - 6 - wide
                formatter.write_dl([(name.ljust(wide), command.get_short_help_str(room)) for name, command in listed])


app = typer.Typer(
    name="remit",
    cls=Panels,
    help="An execution layer for AI agents that act on systems of record.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Start with `remit demo`, or `remit init` in an empty folder.",
)

BUILD, RUN, DECIDE, RECORD, ADMINISTER = "Build", "Run", "Decide", "Record", "Administer"


def _add(panel: str, name: str, command: Callable[..., None], *examples: str) -> None:
    shown = "\b\n" + "\n".join(["Examples:" if len(examples) > 1 else "Example:", *(f"  {one}" for one in examples)])
    app.command(name, rich_help_panel=panel, epilog=shown if examples else None)(command)


_add(
    BUILD,
    "demo",
    demo.demo,
    "remit demo --dir demo",
    "remit demo --tickets export.csv --column title=Summary --column body=Text",
)
_add(BUILD, "init", contracts.init, "remit init it-tickets --dir my-agents")
_add(BUILD, "check", contracts.check)
_add(BUILD, "schema", contracts.schema, "remit schema contract > contract.schema.json")
app.add_typer(policy.app, name="policy", rich_help_panel=BUILD)
app.add_typer(contract.app, name="contract", rich_help_panel=BUILD)
app.add_typer(models.app, name="models", rich_help_panel=BUILD)
_add(
    RUN,
    "run",
    runs.run,
    "remit run it-tickets '{\"issue\": 12}'",
    "remit run it-tickets '{\"issue\": 12}' --on-behalf-of ann --key ticket-12",
)
_add(RUN, "submit", runs.submit, "remit submit it-tickets '{\"issue\": 12}' --priority high")
_add(RUN, "worker", workers.worker, "remit worker --once", "remit worker --at-once 32")
_add(RUN, "serve", workers.serve, "remit serve --listen 0.0.0.0:8780")
_add(RUN, "runs", runs.list_runs, "remit runs --outcome held", "remit runs --last 100 --json")
_add(RUN, "show", runs.show, "remit show run-04257f75", "remit show 0425 --timeline")
_add(
    RUN,
    "replay",
    replay.replay,
    "remit replay --last 50",
    "remit replay 0425 --code recorded",
    "remit replay --since 7d --level 3 --change policy=stricter.cedar",
)
_add(RUN, "close", runs.close, "remit close 0425 --as lee --reason 'done by hand'")
_add(RUN, "undo", undo.undo, "remit undo 0425 --as lee --plan", "remit undo 0425 --as lee --reason 'wrong queue'")
_add(DECIDE, "cases", cases.list_cases, "remit cases", "remit cases --status all --contract it-tickets")
_add(DECIDE, "case", cases.show_case, "remit case 9428", "remit case 9428 --as lee")
_add(DECIDE, "approve", cases.approve, "remit approve 9428 --as lee", "remit approve 9428 --as lee --reason 'I called back'")
_add(
    DECIDE,
    "deny",
    cases.deny,
    "remit deny 9428 --as lee --reason 'not the owner of the account'",
    "remit deny --all --rule autonomy:directory.reset_access --as lee",
)
_add(
    DECIDE,
    "answer",
    cases.answer,
    "remit answer 568c 'ask the carrier first' --as sam",
    "remit answer 568c --edit --as sam",
)
_add(DECIDE, "resolve", cases.resolve, "remit resolve 568c --as sam --reason 'sorted by hand'")
_add(RECORD, "verify", verify.verify, "remit verify", "remit verify --from checkpoint.txt")
_add(
    RECORD,
    "backtest",
    backtest.backtest,
    "remit backtest --policy stricter.cedar --fail-on loosened",
    "remit backtest --contract proposed/refunds --since 30d --json",
)
app.add_typer(imports.app, name="import", rich_help_panel=RECORD)
_add(RECORD, "checkpoint", checkpoints.checkpoint, "remit checkpoint > checkpoint.txt")
_add(RECORD, "prove", checkpoints.prove, "remit prove 0425", "remit prove 0425 3 --out event.tlog-proof")
_add(
    RECORD,
    "export",
    exports.export,
    "remit export --format record --out record.jsonl",
    "remit export --format otlp --to http://127.0.0.1:4318 --last 50",
    "remit export --format ocsf --since 24h --out events.jsonl",
)
_add(RECORD, "metrics", exports.metrics, "remit metrics", "remit metrics --listen 127.0.0.1:9464")
_add(RECORD, "publish", checkpoints.publish, "remit publish --listen 0.0.0.0:8780")
_add(
    RECORD,
    "reveal",
    records.reveal,
    "remit reveal 0425 --as lee --reason 'the customer asks what we sent'",
    "remit reveal 0425 --step 3 --as lee --reason 'wrong account?'",
)
_add(
    RECORD,
    "erase",
    records.erase,
    "remit erase 0425 --as lee --reason 'request of 3 May'",
    "remit erase --subject ann@shop.example --as lee --reason GDPR-17 --yes",
)
_add(RECORD, "retention", records.retention, "remit retention --dry-run")
app.add_typer(records.hold, name="hold", rich_help_panel=RECORD)
app.add_typer(memory.app, name="memory", rich_help_panel=RECORD)
app.add_typer(releases.app, name="release", rich_help_panel=ADMINISTER)
app.add_typer(identity.principals, name="principal", rich_help_panel=ADMINISTER)
_add(ADMINISTER, "token", identity.token, "remit token lee")
app.add_typer(identity.keys, name="keys", rich_help_panel=ADMINISTER)


def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    print_text(f"remit {installed('remit')}")


_add(ADMINISTER, "version", version)


def main() -> None:
    """The entry point. Interrupted by a person, it exits with 130 and without a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except RemitError as error:
        # Only what goes wrong outside of a project comes here: output that can't be written.
        say_error(error)
        sys.exit(1)
