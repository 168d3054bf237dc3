"""What a contract must mean, beyond being well written: the list of rules, and those about the contract as a whole."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Final

from remit.contracts.document import places
from remit.contracts.files import WORKFLOW_FILE
from remit.contracts.model import USUAL_RETENTION, Limits, Style
from remit.contracts.problems import Problem, did_you_mean, listed, quoted
from remit.contracts.quantities import amount, duration_ms
from remit.contracts.rules_actions import ACTION_RULES
from remit.contracts.rules_facts import facts_refer_to_calls
from remit.contracts.rules_models import MODEL_RULES
from remit.contracts.rules_prefetch import prefetched_reads_are_kept
from remit.contracts.rules_schedule import schedules_can_come
from remit.contracts.subject import Subject, entry_point, rule_names
from remit.values import Path, show_path

Rule = Callable[[Subject], Iterable[Problem]]

SIX_MONTHS_MS: Final = 183 * 86_400_000
LONGEST_MS: Final = 100 * 366 * 86_400_000
SPEND_CURRENCY: Final = "USD"
"""Models are priced in it, and budgets of spend are counted in millionths of it."""
_DURATIONS: Final = frozenset({"within", "time", "sla", "timeout", "retention", "erase_after", "p95_latency", "late"})
_AMOUNTS: Final = frozenset({"above", "spend", "spend_per_call", "cost_per_success"})
_SHARES: Final = frozenset({"success", "escalation_rate"})


def contract_problems(subject: Subject) -> list[Problem]:
    """Everything that the rules say against a contract."""
    return [problem for rule in RULES for problem in rule(subject)]


def name_is_the_folder(subject: Subject) -> Iterator[Problem]:
    folder = subject.document.file.split("/")[-2] if "/" in subject.document.file else ""
    if subject.name is not None and folder and subject.name != folder:
        yield subject.error(
            ("contract",),
            f"the contract is called {quoted(subject.name)}, its folder {quoted(folder)}",
            "give both the same name",
        )


def tenant_is_the_projects(subject: Subject) -> Iterator[Problem]:
    mine = subject.known.tenant
    places: list[tuple[Path, str | None]] = [(("tenant",), subject.tenant)]
    places += [(("actions", at, "only", "tenant"), action.only.tenant) for at, action in enumerate(subject.actions)]
    for path, tenant in places:
        if tenant is not None and mine is not None and tenant != mine:
            hint = f"the project's tenant is {quoted(mine)}; write that, or leave the key out"
            yield subject.error(path, f"tenant {quoted(tenant)} is not the project's", hint)


def region_is_the_projects(subject: Subject) -> Iterator[Problem]:
    mine = subject.known.region
    places: list[tuple[Path, str | None]] = [(("region",), subject.region)]
    for at, action in enumerate(subject.actions):
        path: Path = ("actions", at, "only", "region")
        places += [((*path, n), region) for n, region in enumerate(action.only.region)]
    for path, region in places:
        if region is not None and mine is not None and region != mine:
            hint = f"the project's region is {quoted(mine)}; write that, or leave the key out"
            yield subject.error(path, f"region {quoted(region)} is not the project's", hint)


def author_is_a_person(subject: Subject) -> Iterator[Problem]:
    people = subject.known.people
    if subject.author is None:
        return
    kind, _, name = subject.author.partition("/")
    if kind != "person" or not name:
        yield subject.error(
            ("author",), f"author {quoted(subject.author)} is not a person", "write it like `person/lee`"
        )
    elif people is not None and name not in people:
        hint = f"add `[people.{name}]` to `remit.toml`; {did_you_mean(name, people, 'people there')}"
        yield subject.error(("author",), f"author {quoted(subject.author)} is not declared", hint)


def queue_is_declared(subject: Subject) -> Iterator[Problem]:
    if subject.escalate is None or subject.known.queues is None:
        return
    name = subject.escalate.to.removeprefix("queue:")
    if name not in subject.known.queues:
        hint = f"add `[queues.{name}]` to `remit.toml`; {did_you_mean(name, subject.known.queues, 'queues there')}"
        yield subject.error(("escalate", "to"), f"queue {quoted(name)} is not declared", hint)


def workflow_is_there(subject: Subject) -> Iterator[Problem]:
    """A contract of style `workflow` has a `workflow.py` with a function to start with, which takes run and request."""
    workflow = subject.files.workflow
    if subject.style is not Style.WORKFLOW or subject.name is None:
        return
    wanted = f"async def {subject.name.replace('-', '_')}(run, request)"
    if workflow is None:
        if WORKFLOW_FILE not in subject.files.digests:
            hint = f"create it with `{wanted}`, or choose another style"
            yield subject.error(("style",), f"style `workflow` needs a `{WORKFLOW_FILE}` beside the contract", hint)
        return
    entry = entry_point(subject.name, workflow, rule_names(subject.actions))
    file = f"{subject.document.file.rpartition('/')[0]}/{WORKFLOW_FILE}"
    if entry is None:
        public = [name for name in workflow.functions if not name.startswith("_")]
        hint = f"define `{wanted}`; functions there: {listed(public) or 'none'}"
        yield Problem(file=file, line=1, message="there is no function to start with", suggestion=hint)
        return
    node = workflow.functions[entry]
    if not _takes_two(node.args):
        message = f"function {quoted(entry)} does not take a run and a request"
        yield Problem(
            file=file,
            line=node.lineno,
            message=message,
            suggestion=f"write `async def {entry}(run, request)`",
        )


def _takes_two(args: ast.arguments) -> bool:
    positional = len(args.posonlyargs) + len(args.args)
    needed = positional - len(args.defaults)
    missing = sum(default is None for default in args.kw_defaults)
    return needed <= 2 and (positional >= 2 or args.vararg is not None) and not missing


def budget_has_room(subject: Subject) -> Iterator[Problem]:
    budget = subject.budget
    if budget is None:
        return
    if budget.calls == 0 and subject.raw(("budget", "calls")) == 0:
        yield subject.error(("budget", "calls"), "the budget allows no calls at all", "give a run at least one call")
    writes = [action.tool for action in subject.actions if (spec := subject.tool(action.tool)) and spec.is_write]
    silent = subject.is_absent(("budget", "writes")) or subject.raw(("budget", "writes")) == 0
    if writes and budget.writes == 0 and silent:
        yield subject.error(
            ("budget", "writes"),
            f"the budget allows no writes, but {quoted(writes[0])} is granted",
            "set `budget.writes` to what one run may change, or take the action out",
        )


def retention_lasts(subject: Subject) -> Iterator[Problem]:
    if subject.retention is None or not 0 <= _ms(subject.retention) < SIX_MONTHS_MS:
        return
    yield subject.warning(
        ("retention",),
        f"originals are kept for {quoted(subject.retention)}, less than six months",
        "keep them `183d` or longer, unless the law asks for less",
    )


def erasing_waits_for_retention(subject: Subject) -> Iterator[Problem]:
    """What is erased as a whole has no originals left to keep."""
    if subject.erase_after is None:
        return
    retention = subject.retention or USUAL_RETENTION
    if -1 < _ms(subject.erase_after) < _ms(retention) <= LONGEST_MS:
        yield subject.error(
            ("erase_after",),
            f"runs are erased after {quoted(subject.erase_after)}, and their originals kept for {quoted(retention)}",
            "let `erase_after` be as long as `retention`, or longer",
        )


def quantities_are_possible(subject: Subject) -> Iterator[Problem]:
    """Durations, amounts and shares that are well written and still can't be."""
    for path, value in places(subject.document.value):
        if isinstance(value, str) and path:
            found = _impossible(path, value)
            if found:
                yield subject.document.problem(path, f"{quoted(show_path(path))} is {quoted(value)}, {found}")


def _impossible(path: Path, value: str) -> str:
    if len(path) > 1 and path[0] in ("success", "facts") and "within" not in path:
        return ""
    *_, name = map(str, path)
    if name in _DURATIONS:
        return _impossible_duration(name, value)
    if name in _AMOUNTS or name.partition("_per_")[0] in ("money", "spend"):
        return _impossible_amount(value)
    if name in _SHARES and value.endswith("%"):
        return _impossible_share(value.removesuffix("%"), Decimal(100), "above 100%")
    if name == "confidence_below":
        return _impossible_share(value, Decimal(1), "and confidence goes from 0 to 1")
    return ""


def _impossible_duration(name: str, value: str) -> str:
    length = _ms(value)
    if length > LONGEST_MS:
        return "longer than a century"
    return "no time at all" if length == 0 and name != "retention" else ""


def _ms(value: str) -> int:
    """The length of a duration in milliseconds; -1 for a text that is none, which the schema reports."""
    try:
        return duration_ms(value[:20])
    except ValueError:
        return LONGEST_MS + 1 if value[:20].isdigit() else -1


def _impossible_amount(value: str) -> str:
    whole = value.partition(" ")[0].partition(".")[0]
    if not whole.isdigit():
        return ""
    return "more than exact decimals can hold" if len(whole.lstrip("0")) > 15 else ""


def _impossible_share(value: str, most: Decimal, words: str) -> str:
    digits = value.replace(".", "", 1)
    if not (digits.isascii() and digits.isdigit()):
        return ""
    if Decimal(value) > most:
        return words
    steps = Decimal(value) * (1000 / most)
    return "" if steps == steps.to_integral_value() else "finer than a tenth of a percent"


def money_is_of_one_currency(subject: Subject) -> Iterator[Problem]:
    """Where money is limited, each limit counts one currency; a second one would slip past the first."""
    for section, limits in (("limits", subject.limits), ("per_person", subject.per_person)):
        money = {name: text for name, text in _amounts(limits) if name.startswith("money")}
        yield from _one_currency(subject, (section,), money)


def _one_currency(subject: Subject, path: Path, amounts: dict[str, str]) -> Iterator[Problem]:
    currencies = {name: amount(text).currency for name, text in amounts.items() if not _impossible_amount(text)}
    first = next(iter(currencies), "")
    for name, currency in currencies.items():
        if currency != currencies[first]:
            yield subject.error(
                (*path, name),
                f"{quoted(name)} is in {currency}, {quoted(first)} in {currencies[first]}",
                "limit one currency in one place",
            )


def spend_is_in_dollars(subject: Subject) -> Iterator[Problem]:
    """What models cost is counted in one currency, that of their prices."""
    places: list[tuple[Path, str | None]] = []
    if subject.budget is not None:
        places.append((("budget", "spend"), subject.budget.spend))
    if subject.slo is not None:
        places.append((("slo", "cost_per_success"), subject.slo.cost_per_success))
    places += [(("models", name, "spend_per_call"), each.spend_per_call) for name, each in subject.models.items()]
    for section, limits in (("limits", subject.limits), ("per_person", subject.per_person)):
        places += [((section, name), text) for name, text in _amounts(limits) if name.startswith("spend")]
    for path, text in places:
        if text is not None and not text.endswith(f" {SPEND_CURRENCY}"):
            hint = f"models are priced in {SPEND_CURRENCY}; write it like `0.05 {SPEND_CURRENCY}`"
            yield subject.error(path, f"{quoted(show_path(path))} is {quoted(text)}", hint)


def _amounts(limits: Limits) -> Iterator[tuple[str, str]]:
    for name in limits.__struct_fields__:
        value = getattr(limits, name)
        if isinstance(value, str):
            yield name, value


RULES: Final[tuple[Rule, ...]] = (
    name_is_the_folder,
    tenant_is_the_projects,
    region_is_the_projects,
    author_is_a_person,
    *ACTION_RULES,
    *MODEL_RULES,
    facts_refer_to_calls,
    queue_is_declared,
    workflow_is_there,
    schedules_can_come,
    prefetched_reads_are_kept,
    budget_has_room,
    money_is_of_one_currency,
    spend_is_in_dollars,
    retention_lasts,
    erasing_waits_for_retention,
    quantities_are_possible,
)
"""Every rule, in the order of the contract. Each is a function from the contract to what is wrong with it."""
