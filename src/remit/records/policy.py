"""The decision point of the record: who may do what to which run, by the project's `record.cedar`.

    principal  Person, a member of its roles: `principal in Role::"records"`
    action     one of `Deed`
    resource   Run, with `contract`, `tenant`, `region`, `status` and, where it acts for somebody, `on_behalf_of`
    context    `classes`: what kinds of data would be shown; `reason_given`

Default deny: without a rule that permits it nobody may, and without the file there is no rule. One rule is always there:
nobody is shown, or has erased, what was done for themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import cedarpy
import msgspec
from cedarpy import pst

from remit.contracts.document import Unreadable, read_text
from remit.contracts.problems import Problem, ProjectInvalid
from remit.contracts.project import Project
from remit.contracts.subject import Known
from remit.errors import ConfigError
from remit.identity.principals import Person
from remit.policy.annotations import Rule, read_rules
from remit.records.record_cedar import ALWAYS, FILE, PERSON, ROLE, RUN, Deed, example, read_record_rules
from remit.values import Json, encode


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What policy knows of a run. `on_behalf_of`: the id of the person it acts for, without `person/`."""

    run: str
    contract: str
    tenant: str
    region: str
    status: str
    on_behalf_of: str | None = None


class Purpose(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done, by whom and why. `classes`: the kinds of data that would be shown."""

    deed: Deed
    person: Person
    reason: str = ""
    classes: frozenset[str] = frozenset()


class RecordPolicy:
    """Decides by the rules that always hold and those of one file. Immutable; see `load`."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        always, _ = read_rules(ALWAYS)
        self._rules: Mapping[str, Rule] = {rule.id: rule for rule in (*always, *rules)}
        named = {id_: replace(rule.template, id=id_, annotations={}) for id_, rule in self._rules.items()}
        self._policies = cedarpy.PolicySet.from_pst(
            pst.PolicySet(templates={}, static_policies=named, template_links=())
        )

    @classmethod
    def load(cls, project: Project) -> RecordPolicy:
        """Read the project's file. Raises `ConfigError`: `record_policy_missing`, or every problem that it has."""
        if not (project.folder / FILE).exists():
            said = f"nobody may do that: there is no `{FILE}` in `{project.folder}`; write one, such as"
            raise ConfigError(f"{said}\n{example(sorted(project.roles))}", code="record_policy_missing")
        try:
            text = read_text(project.folder / FILE, FILE)
        except Unreadable as error:
            raise ProjectInvalid([error.problem]) from error
        rules, wrong = read_record_rules(text, Known.of(project))
        if wrong:
            raise ProjectInvalid(
                Problem(file=FILE, line=each.line, message=each.message, suggestion=each.suggestion) for each in wrong
            )
        return cls(rules)

    def refusal(self, purpose: Purpose, run: RunFacts) -> str | None:
        """Why this may not be done to a run; `None` where it may."""
        person = purpose.person
        what = f"`{person.principal}` may not {purpose.deed} `{run.run}`"
        if not person.enabled:
            return f"{what}: this person is disabled; `remit principal enable {person.principal}`, if that was a mistake"
        result = cedarpy.is_authorized(  # pyright: ignore[reportUnknownMemberType]
            _request(purpose, run), self._policies, _entities(person, run)
        )
        fired, errors = sorted(result.diagnostics.reasons), result.diagnostics.errors
        if errors:
            # Cedar skips what it can't evaluate; a forbid among it would be passed over.
            return f"{what}: `{FILE}` can't be evaluated: {errors[0]}"
        if result.allowed:
            return None
        if not fired:
            return f"{what}: no rule of `{FILE}` permits it"
        return f"{what}: {'; '.join(self._said(id_) for id_ in fired)}"

    def _said(self, id_: str) -> str:
        return f"{self._rules[id_].reason or 'a rule forbids it'} (`{id_}`)"


def _request(purpose: Purpose, run: RunFacts) -> dict[str, Json]:
    context = {"classes": sorted(purpose.classes), "reason_given": bool(purpose.reason.strip())}
    return {
        "principal": {"type": PERSON, "id": purpose.person.id},
        "action": {"type": "Action", "id": str(purpose.deed)},
        "resource": {"type": RUN, "id": run.run},
        "context": encode(context).decode(),
    }


def _entities(person: Person, run: RunFacts) -> cedarpy.Entities:
    roles = [{"type": ROLE, "id": role.removeprefix("role:")} for role in sorted(person.roles)]
    attributes: dict[str, Json] = {
        "contract": run.contract,
        "tenant": run.tenant,
        "region": run.region,
        "status": run.status,
    }
    if run.on_behalf_of is not None:
        attributes["on_behalf_of"] = {"__entity": {"type": PERSON, "id": run.on_behalf_of}}
    found: list[Json] = [
        {"uid": {"type": PERSON, "id": person.id}, "attrs": {}, "parents": roles},
        {"uid": {"type": RUN, "id": run.run}, "attrs": attributes, "parents": []},
        *({"uid": role, "attrs": {}, "parents": []} for role in roles),
    ]
    return cedarpy.Entities.from_json_str(encode(found).decode())  # pyright: ignore[reportUnknownMemberType]
