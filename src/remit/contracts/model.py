"""A contract as `contract.yaml` says it, in types. `load` fills them, `check` finds what is wrong, `compile` makes Cedar.

Durations are written `30s`, `15m`, `4h`, `1d`; shares `98%`; money `50.00 EUR`; they become integers here
(`_ms`, per mille, ten-thousandths) in `load`, so that no float ever reaches a decision.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from remit.contracts.urgency import Urgency

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,47}$", description="lower-case letters, digits, hyphens")]
Duration = Annotated[str, Meta(pattern=r"^[0-9]+(ms|s|m|h|d)$", description="`30s`, `15m`, `4h`, `1d`")]
Share = Annotated[str, Meta(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3})?%$", description="`98%`")]
Amount = Annotated[
    str, Meta(pattern=r"^[0-9]+(\.[0-9]{1,4})? [A-Z]{3}$", description="`50.00 EUR`; at most four decimals")
]
Count = Annotated[int, Meta(ge=0)]
Role = Annotated[str, Meta(pattern=r"^role:[a-z][a-z0-9-]*$", description="`role:it-lead`")]
QueueName = Annotated[str, Meta(pattern=r"^queue:[a-z][a-z0-9-]*$", description="`queue:service-desk`")]
InputPath = Annotated[
    str, Meta(pattern=r"^[^.\s]+(\.[^.\s]+)*$", description="`text`, `lines.*.note`; names with dots between them")
]
FactPath = Annotated[str, Meta(pattern=r"^args(\.[A-Za-z_][A-Za-z0-9_]*)+$", description="`args.order`")]


USUAL_RETENTION = "183d"


class Style(StrEnum):
    """How the agent works; the names are the field's."""

    SINGLE = "single"
    REACT = "react"
    WORKFLOW = "workflow"
    ENSEMBLE = "ensemble"
    COPILOT = "copilot"


class Autonomy(StrEnum):
    """How far an action goes by itself, from watching to acting."""

    OBSERVE = "observe"
    """Decided and recorded, never carried out."""
    SUGGEST = "suggest"
    """Every call is a suggestion that a person must take up."""
    APPROVE = "approve"
    """A person approves each call (or those above a threshold)."""
    AUTO = "auto"
    """Carried out without asking anybody, as far as grants, policy and limits let it."""


class Late(StrEnum):
    """What becomes of a step whose time is spent."""

    FAIL = "fail"
    """The call fails with code `latency_spent`; the workflow may go on without it."""
    ESCALATE = "escalate"
    """The run is handed over to a person."""


class Base(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Closed: an unknown key is an error, never ignored."""


class Owner(Base, frozen=True, kw_only=True):
    team: str
    contact: str


class Only(Base, frozen=True, kw_only=True):
    """Where an action may be used. What is left out is not restricted by it, except the tenant: that is always the contract's."""

    tenant: str | None = None
    region: list[str] = field(default_factory=list[str])
    fields: list[str] = field(default_factory=list[str])
    """The fields that a write may touch; required for tools that write fields."""
    attributes: dict[str, str | int | bool] = field(default_factory=dict[str, "str | int | bool"])
    """Attributes that the object must have (`vip: false`)."""


class Approval(Base, frozen=True, kw_only=True):
    by: Role
    within: Duration
    above: Amount | None = None
    """Ask only where the money that the call moves is more than this."""


class ActionLimits(Base, frozen=True, kw_only=True):
    """Limits of one action: `per_*` count calls, `money_per_*` money moved, `rows_per_*` objects touched."""

    per_run: Count | None = None
    per_minute: Count | None = None
    per_hour: Count | None = None
    per_day: Count | None = None
    rows_per_run: Count | None = None
    rows_per_hour: Count | None = None
    rows_per_day: Count | None = None
    money_per_run: Amount | None = None
    money_per_hour: Amount | None = None
    money_per_day: Amount | None = None


class Limits(Base, frozen=True, kw_only=True):
    """Limits over all actions of a contract, of one person it acts for, or of a tenant (in `remit.toml`)."""

    calls_per_minute: Count | None = None
    calls_per_hour: Count | None = None
    calls_per_day: Count | None = None
    writes_per_minute: Count | None = None
    writes_per_hour: Count | None = None
    writes_per_day: Count | None = None
    rows_per_hour: Count | None = None
    rows_per_day: Count | None = None
    spend_per_hour: Amount | None = None
    spend_per_day: Amount | None = None
    money_per_hour: Amount | None = None
    money_per_day: Amount | None = None


class Action(Base, frozen=True, kw_only=True):
    """One tool that the contract grants, and on which terms."""

    tool: str
    only: Only = Only()
    autonomy: Autonomy = Autonomy.AUTO
    approval: Approval | None = None
    within: Duration | None = None
    """How long one step of it may take, all attempts together; left out, as long as the tool's own time-outs allow."""
    late: Late = Late.FAIL
    """What happens when that is spent before a read has answered; a write is settled as after a time-out."""
    verify: list[str] = field(default_factory=list[str])
    """`rule:<name>` (a function of `workflow.py`) or `model:<name>`; each must agree before the call goes out."""
    limits: ActionLimits = ActionLimits()


class Fact(Base, frozen=True, kw_only=True):
    """A fact over the run's own record; exactly one of `seen`, `count`, `sum`, `last` names the tool."""

    seen: str | None = None
    """Whether such a call is on record: `Bool`."""
    count: str | None = None
    """How many: `Long`."""
    sum: str | None = None
    """The exact sum of `of` over them: `Long` or `decimal`."""
    last: str | None = None
    """The latest value of `of`: its type, absent where there is none."""
    of: str | None = None
    """`args.<path>` or `result.<path>` of the earlier call; needed by `sum` and `last`."""
    where: dict[str, FactPath] = field(default_factory=dict[str, str])
    """Argument path of the earlier call → `args.<path>` of the present one; both must be equal."""
    within: Duration | None = None
    outcome: str = "completed"
    """Which earlier calls count: completed, denied, rejected, held, failed, unknown, any."""


class Prefetch(Base, frozen=True, kw_only=True):
    """A read that is begun when the run is, so that its answer is there when it is asked for."""

    tool: str
    args: dict[str, Any] = field(default_factory=dict[str, Any])
    """Its arguments; a text such as `request.order` stands for that part of the request."""


class Schedule(Base, frozen=True, kw_only=True):
    """When a run is opened by itself."""

    cron: str
    """`minute hour day month weekday`: `0 6 * * 1-5`."""
    zone: str = "UTC"
    """The time zone that `cron` is in, such as `Europe/Berlin`."""
    request: dict[str, Any] = field(default_factory=dict[str, Any])
    """What each of its runs is opened for."""
    late: Duration = "1h"
    """How much later it is still opened where no worker was there at its time; of several times missed, the last."""


class Budget(Base, frozen=True, kw_only=True):
    """What one run may use, whatever it does."""

    calls: Count
    writes: Count = 0
    spend: Amount = "0 USD"
    time: Duration = "10m"


class EscalateWhen(Base, frozen=True, kw_only=True):
    confidence_below: Annotated[str, Meta(pattern=r"^[01](\.[0-9]{1,3})?$")] | None = None
    data_missing: bool = False
    policy_ambiguous: bool = False
    retries_exhausted: bool = True


class Escalation(Base, frozen=True, kw_only=True):
    to: QueueName
    sla: Duration
    when: EscalateWhen = EscalateWhen()


class Success(Base, frozen=True, kw_only=True):
    metric: str
    baseline: dict[str, str] = field(default_factory=dict[str, str])


class Slo(Base, frozen=True, kw_only=True):
    success: Share | None = None
    p95_latency: Duration | None = None
    unauthorized_actions: Count | None = None
    data_exposure: Count | None = None
    escalation_rate: Share | None = None
    cost_per_success: Amount | None = None


class AnswerKind(StrEnum):
    """What kind of answer a model gives."""

    LABELS = "labels"
    """A label and a confidence for each head of `prompts/<x>.answer.json`, or of a classifier."""
    VALUE = "value"
    """A value that meets the JSON Schema `prompts/<x>.schema.json`."""
    TEXT = "text"
    """A text."""
    TOOLS = "tools"
    """A turn of a conversation: a text, and calls of the contract's own actions that it wants made."""


class ModelBinding(Base, frozen=True, kw_only=True):
    """A model that the contract may ask: `use` names a binding of `remit.toml`, `prompt` a file in `prompts/`."""

    use: str
    prompt: str | None = None
    answer: AnswerKind | None = None
    """What kind of answer it gives; left out, the file beside the prompt says: `.schema.json` value, else labels."""
    fallback: list[str] | None = None
    """Models of `remit.toml` that are asked in its place, in this order, where it can't answer; left out, those that its
    own section names."""
    spend_per_call: Amount = "0 USD"
    """Reserved before the request is sent; the real cost is settled after."""
    timeout: Duration = "30s"


class Contract(Base, frozen=True, kw_only=True):
    """One workflow's contract."""

    contract: Name
    owner: Owner
    purpose: str
    style: Style
    author: str | None = None
    """Who wrote it (`person/<id>`): never the one who approves its release."""
    tenant: str | None = None
    """Defaults to the project's."""
    region: str | None = None
    input: str
    """Path of a JSON Schema, relative to the contract."""
    untrusted_input: tuple[InputPath, ...] = ()
    """The parts of a request that others wrote (a ticket's text, a mail): dotted paths, `*` for the items of a list.

    What stands only there is labelled `untrusted:request`; the rest of a request is its user's and is trusted.
    """
    output: str
    actions: list[Action]
    models: dict[str, ModelBinding] = field(default_factory=dict[str, ModelBinding])
    facts: dict[str, Fact] = field(default_factory=dict[str, Fact])
    budget: Budget
    limits: Limits = Limits()
    per_person: Limits = Limits()
    """Limits for each person that a run acts on behalf of."""
    prefetch: list[Prefetch] = field(default_factory=list[Prefetch])
    """Reads that are begun when a run is; their tools say how long an answer is fresh."""
    priority: Urgency = Urgency.NORMAL
    """Which runs workers take first; a run that has waited a minute counts as one step more urgent."""
    at_once: Annotated[int, Meta(ge=1)] | None = None
    """How many of its runs are driven at the same time, by all workers together; left out, as many as they can."""
    schedule: list[Schedule] = field(default_factory=list[Schedule])
    """When runs are opened by themselves."""
    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    """How often a step may be proposed before a malformed call is escalated."""
    escalate: Escalation
    success: Success
    slo: Slo
    retention: Duration = USUAL_RETENTION
    """How long after a run's closing the originals of what is redacted are kept; six months or more where an auditor may
    ask."""
    erase_after: Duration | None = None
    """How long after a run's closing all of it is erased, at least `retention`; left out, never."""


JsonSchema = dict[str, Any]
