"""Rules about what stands in `policy.cedar`, beyond being valid: whom it asks, and whether facts outlast the asking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from remit.contracts.model import Action, Autonomy, Contract
from remit.contracts.problems import Problem, did_you_mean, quoted
from remit.contracts.quantities import duration_ms
from remit.contracts.subject import Subject
from remit.policy.compile import USUAL_WITHIN_MS, Checked


def holds_name_roles_that_are_held(subject: Subject, checked: Checked, file: str) -> Iterator[Problem]:
    """A question that nobody may answer is a no that comes late."""
    roles = subject.known.roles
    for rule in checked.own:
        if rule.hold is None or roles is None:
            continue
        role = rule.hold.role.removeprefix("role:")
        if role not in roles:
            hint = f"give it to somebody under `[people]` in `remit.toml`; {did_you_mean(role, roles, 'roles held')}"
            line = rule.statement.line_of(("@", "hold", "(", rule.hold.role))
            yield Problem(file=file, line=line, message=f"no person holds the role {quoted(role)}", suggestion=hint)


@dataclass(frozen=True, kw_only=True)
class _Wait:
    """The longest that a call of `tool` may wait for a person; `rule` denies it if a fact is no longer so by then."""

    length_ms: int
    tool: str
    rule: str


def facts_outlast_approvals(subject: Subject, contract: Contract, checked: Checked) -> Iterator[Problem]:
    """An approved call is judged again: what has become too old meanwhile makes a no of the yes."""
    longest: dict[str, _Wait] = {}
    for fact, wait in _waits(contract, checked):
        if fact not in longest or longest[fact].length_ms < wait.length_ms:
            longest[fact] = wait
    for name, wait in longest.items():
        within = contract.facts[name].within or ""
        spare_ms = duration_ms(within) - wait.length_ms
        if spare_ms > 0:
            continue
        asked = _spoken(wait.length_ms)
        message = (
            f"fact {quoted(name)} looks back {quoted(within)}, and a call of {quoted(wait.tool)} may wait "
            f"{quoted(asked)} for a person; approved late, it is denied by {quoted(wait.rule)}"
        )
        hint = f"let the fact look back for longer than `{asked}`, or let the question stand for less"
        say = subject.error if spare_ms < 0 else subject.warning
        yield say(("facts", name, "within"), message, hint)


def _waits(contract: Contract, checked: Checked) -> Iterator[tuple[str, _Wait]]:
    """For each fact with a window that a hard rule needs: the waits that it must outlast."""
    for action in contract.actions:
        tool, length_ms = action.tool, _longest_question_ms(action, checked)
        for rule in checked.own if length_ms else ():
            for name in sorted(rule.needs) if rule.hold is None and rule.is_about(tool) else ():
                fact = contract.facts.get(name)
                # A sum may also fall by what is added to it, so that nothing certain can be said of it.
                if fact is not None and fact.within is not None and fact.sum is None:
                    yield name, _Wait(length_ms=length_ms, tool=tool, rule=rule.id)


def _longest_question_ms(action: Action, checked: Checked) -> int:
    """How long a question about a call may stand; 0 where nobody is ever asked."""
    if action.autonomy is Autonomy.OBSERVE:
        return 0
    approval = action.approval
    usual_ms = duration_ms(approval.within) if approval else USUAL_WITHIN_MS
    holds = [rule.hold for rule in checked.rules if rule.hold is not None and rule.is_about(action.tool)]
    longest = max((usual_ms if hold.within_ms is None else hold.within_ms for hold in holds), default=0)
    # Where each call is asked about, no other question about it stands for longer.
    asks_always = approval is not None and (approval.above is None or action.autonomy is Autonomy.SUGGEST)
    return min(longest, usual_ms) if asks_always else longest


def _spoken(length_ms: int) -> str:
    for unit, name in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")):
        if length_ms % unit == 0:
            return f"{length_ms // unit}{name}"
    return f"{length_ms}ms"
