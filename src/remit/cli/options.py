"""Options that several commands share: a parameter that is a dataclass stands for one option for each of its fields."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from remit.app import Remit
    from remit.cases.cases import CaseFilter

MOST = 1_000_000
"""More rows than anybody reads; a database takes no number without end."""


@dataclass(frozen=True, kw_only=True)
class CaseOptions:
    """Which cases are meant; what is `None` does not matter."""

    rule: Annotated[
        str | None, typer.Option(metavar="RULE", help="Only what this rule asks, such as `autonomy:payments.refund`.")
    ] = None
    contract: Annotated[str | None, typer.Option(metavar="CONTRACT", help="Only of this contract's runs.")] = None
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Only `approval`, `escalation`, `unknown`, or the code of what ended a run."),
    ] = None
    queue: Annotated[str | None, typer.Option(metavar="QUEUE", help="Only of this queue.")] = None
    run: Annotated[str | None, typer.Option(metavar="RUN", help="Only of this run; the start of its id is enough.")] = None

    def are_set(self) -> bool:
        """Whether any of them is."""
        return any(getattr(self, field.name) is not None for field in fields(CaseOptions))

    def asked(self, remit: Remit) -> CaseFilter:
        """The filters as the cases take them. Raises `RunError` for a run that isn't there."""
        from remit.cli.lookup import find, storable

        chosen: CaseFilter = {}
        if self.run is not None:
            chosen["run"] = find(remit, "run", self.run)
        if self.rule is not None:
            chosen["rule"] = storable(self.rule)
        if self.contract is not None:
            chosen["contract"] = storable(self.contract)
        if self.kind is not None:
            chosen["kind"] = storable(self.kind)
        if self.queue is not None:
            chosen["queue"] = storable(self.queue)
        return chosen


@dataclass(frozen=True, kw_only=True)
class Listed(CaseOptions):
    """And how many of them are shown."""

    limit: Annotated[int, typer.Option(metavar="N", min=1, max=MOST, help="How many are shown.")] = 1000
    offset: Annotated[int, typer.Option(metavar="N", min=0, max=MOST, help="How many are left out before these.")] = 0


@dataclass(frozen=True, kw_only=True)
class Many(CaseOptions):
    """Many cases that are decided alike, instead of one."""

    every: Annotated[
        bool, typer.Option("--all", help="All that the filters leave, instead of one CASE; shows how many, until `--yes`.")
    ] = False
    yes: Annotated[bool, typer.Option("--yes", help="With `--all`: do it.")] = False


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of its parameters that are dataclasses."""
    parameters = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {name: one.annotation for name, one in parameters.items() if is_dataclass(one.annotation)}

    @functools.wraps(command)
    def spread_out(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    shown = [option for one in parameters.values() for option in _options(one, groups)]
    made: Any = spread_out
    made.__signature__ = inspect.Signature(shown)
    made.__annotations__ = {option.name: option.annotation for option in shown}
    return made


def _options(parameter: inspect.Parameter, groups: dict[str, Any]) -> Iterator[inspect.Parameter]:
    group = groups.get(parameter.name)
    if group is None:
        yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        return
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name]
        )
