"""Events for a SIEM, in the Open Cybersecurity Schema Framework (OCSF 1.8.0, schema.ocsf.io).

What a call was allowed to do and what became of it is API Activity, the start and end of a run Application Lifecycle, a
question to a person a Detection Finding that the answer closes, an approval Authorize Session, a change of who may act
Entity Management. What has no place in a class stands in `unmapped`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from remit.journal.events import EventType
from remit.journal.leaves import Leaf
from remit.values import Json

VERSION = "1.8.0"

Mapped = dict[str, Any]

_API, _LIFECYCLE, _FINDING, _AUTHORIZE, _ENTITY = (6, 6003), (6, 6002), (2, 2004), (3, 3003), (3, 3004)
"""Category and class of each kind of event."""
_UNKNOWN, _READ, _OTHER = 0, 2, 99
_INFORMATIONAL, _LOW, _MEDIUM, _HIGH = 1, 2, 3, 4
_SUCCESS, _FAILURE = 1, 2
_SEVERITIES = {_INFORMATIONAL: "Informational", _LOW: "Low", _MEDIUM: "Medium", _HIGH: "High"}
_STATUSES = {0: "Unknown", _SUCCESS: "Success", _FAILURE: "Failure"}

# action_id, action, disposition_id, disposition, status_id, severity_id
_VERDICTS: Mapping[str, tuple[int, str, int, str, int, int]] = {
    "allow": (1, "Allowed", 1, "Allowed", _SUCCESS, _INFORMATIONAL),
    "deny": (2, "Denied", 2, "Blocked", _FAILURE, _MEDIUM),
    "reject": (2, "Denied", 25, "Rejected", _FAILURE, _LOW),
    "hold": (_OTHER, "Held", 14, "Delayed", _UNKNOWN, _LOW),
    "defer": (_OTHER, "Deferred", 14, "Delayed", _UNKNOWN, _INFORMATIONAL),
}
_ENDS = {
    EventType.CALL_COMPLETED: (_SUCCESS, _INFORMATIONAL),
    EventType.CALL_FAILED: (_FAILURE, _LOW),
    EventType.CALL_UNKNOWN: (_UNKNOWN, _HIGH),
}
_RUN_FAILED = {"failed", "denied", "diverged", "unknown"}


class _Activity(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to the record, as an activity on it."""

    id: int
    name: str
    severity: int = _INFORMATIONAL
    status: int = _SUCCESS


_ON_RECORD: Mapping[EventType, _Activity] = {
    EventType.RUN_ERASED: _Activity(id=4, name="Delete", severity=_MEDIUM),
    EventType.ORIGINALS_DROPPED: _Activity(id=4, name="Delete"),
    EventType.HOLD_PLACED: _Activity(id=1, name="Create"),
    EventType.HOLD_LIFTED: _Activity(id=4, name="Delete"),
    EventType.VALUE_REVEALED: _Activity(id=_READ, name="Read", severity=_MEDIUM),
    EventType.CASE_REVEALED: _Activity(id=_READ, name="Read", severity=_LOW),
    EventType.KEY_REVOKED: _Activity(id=4, name="Delete", severity=_MEDIUM),
    EventType.DEED_DENIED: _Activity(id=_OTHER, name="Denied", severity=_MEDIUM, status=_FAILURE),
    EventType.RUN_REPLAYED: _Activity(id=_READ, name="Read"),
    EventType.RECORD_EXPORTED: _Activity(id=_READ, name="Read", severity=_LOW),
    EventType.RECORD_RESTORED: _Activity(id=_OTHER, name="Restored", severity=_MEDIUM),
    EventType.RECORD_COMPARED: _Activity(id=_READ, name="Read"),
    EventType.VALUE_RECORDED: _Activity(id=_READ, name="Read"),
    EventType.CONTEXT_RETRIEVED: _Activity(id=_READ, name="Read"),
    EventType.DOCUMENT_ADDED: _Activity(id=1, name="Create"),
    EventType.DOCUMENT_RECALLED: _Activity(id=4, name="Delete", severity=_LOW),
    EventType.DOCUMENT_FORGOTTEN: _Activity(id=4, name="Delete", severity=_MEDIUM),
}


class Ocsf:
    """Maps leaves in the order of the record. An outcome is of the activity that its decision was of."""

    def __init__(self, version: str) -> None:
        self._product = {"name": "Remit", "vendor_name": "Remit", "version": version}
        self._decided: dict[tuple[str, str], tuple[int, str]] = {}
        self._asked: dict[tuple[str, str], tuple[str, str]] = {}
        self._map: Mapping[EventType, Callable[[Leaf, dict[str, Any]], Mapped]] = {
            EventType.RUN_OPENED: _run_opened,
            EventType.RUN_RESUMED: _run_resumed,
            EventType.RUN_CLOSED: self._run_closed,
            EventType.CALL_DECIDED: self._call_decided,
            EventType.APPROVAL_REQUESTED: self._approval_requested,
            EventType.APPROVAL_DECIDED: self._approval_decided,
            EventType.CASE_OPENED: _asked,
            EventType.CASE_DECIDED: _case_decided,
            EventType.PRINCIPAL_CHANGED: _entity_changed,
            EventType.RELEASE_APPROVED: _entity_changed,
            **dict.fromkeys(_ENDS, self._call_ended),
            **dict.fromkeys(_ON_RECORD, _on_record),
        }

    def event(self, leaf: Leaf) -> Mapped:
        """One event. A body that was erased leaves what the header says."""
        header = leaf.header
        body = leaf.told
        mapped = self._map[leaf.type](leaf, body)
        mapped["type_uid"] = mapped["class_uid"] * 100 + mapped["activity_id"]
        mapped["severity"] = _SEVERITIES[mapped["severity_id"]]
        mapped["time"] = header.at // 1000
        mapped["metadata"] = {
            "version": VERSION,
            "product": self._product,
            "uid": leaf.hash.hex(),
            "sequence": leaf.seq,
            "event_code": header.type,
            "correlation_uid": header.run,
            "tenant_uid": header.tenant,
            "log_name": "remit journal",
            "original_time": str(header.at),
            **({"profiles": ["security_control"]} if "action_id" in mapped else {}),
        }
        mapped["unmapped"] = {
            "run": header.run,
            "n": header.n,
            **{
                name: value
                for name in ("span", "verdict", "refs", "cost_microusd", "tokens_in", "tokens_out", "latency_us")
                if (value := getattr(header, name))
            },
            "body": leaf.body,
        }
        return mapped

    @property
    def remembered(self) -> int:
        """How many calls and questions wait for their end."""
        return len(self._decided) + len(self._asked)

    def _call_decided(self, leaf: Leaf, body: dict[str, Any]) -> Mapped:
        header = leaf.header
        verdict: dict[str, Any] = body.get("verdict", {})
        activity = _activity(body)
        if header.verdict == "allow":
            self._decided[header.run, header.span] = activity
        action_id, action, disposition_id, disposition, status, severity = _VERDICTS[header.verdict]
        rules = [{"decision": header.verdict, "policy": {"uid": rule}} for rule in verdict.get("rules", ())]
        found: dict[str, Any] | None = body.get("resource")
        mapped = _api(leaf, body, activity, status, severity)
        mapped |= {
            "action_id": action_id,
            "action": action,
            "disposition_id": disposition_id,
            "disposition": disposition,
            "is_alert": header.verdict == "deny",
        }
        if rules:
            mapped["authorizations"] = rules
        if found is not None:
            mapped["resources"] = [{"type": found["kind"], "uid": found["id"]}]
        if "code" in verdict:
            mapped["status_code"] = verdict["code"]
        if verdict.get("message"):
            mapped["status_detail"] = verdict["message"]
        return mapped

    def _call_ended(self, leaf: Leaf, body: dict[str, Any]) -> Mapped:
        header = leaf.header
        activity = self._decided.pop((header.run, header.span), (_UNKNOWN, "Unknown"))
        status, severity = _ENDS[leaf.type]
        mapped = _api(leaf, body, activity, status, severity)
        if "code" in body:
            mapped["status_code"] = body["code"]
            mapped["status_detail"] = body["message"]
            mapped["api"]["response"] = {"error": body["code"], "error_message": body["message"]}
        elif body:
            mapped["api"]["response"] = {"data": _json_object(body.get("result"))}
        return mapped

    def _run_closed(self, leaf: Leaf, body: dict[str, Any]) -> Mapped:
        outcome, run = leaf.header.verdict, leaf.header.run
        self._decided = {key: value for key, value in self._decided.items() if key[0] != run}
        self._asked = {key: value for key, value in self._asked.items() if key[0] != run}
        failed = outcome in _RUN_FAILED
        mapped = _lifecycle(leaf, 4, "Stop", _LOW if failed else _INFORMATIONAL)
        mapped |= {"status_id": _FAILURE if failed else _SUCCESS, "status_code": outcome}
        mapped["status"] = _STATUSES[mapped["status_id"]]
        if body.get("reason"):
            mapped["status_detail"] = body["reason"]
        return mapped


    def _approval_requested(self, leaf: Leaf, body: dict[str, Any]) -> Mapped:
        shown: Mapping[str, Any] = body.get("shown", {})
        self._asked[leaf.header.run, leaf.header.span] = (leaf.header.actor, str(shown.get("tool", "")))
        return _asked(leaf, body)

    def _approval_decided(self, leaf: Leaf, body: dict[str, Any]) -> Mapped:
        """A person gives an agent leave for one call, or does not."""
        header = leaf.header
        agent, tool = self._asked.pop((header.run, header.span), ("", ""))
        status = _SUCCESS if header.verdict == "approved" else _FAILURE
        return {
            **_class(_AUTHORIZE, 1, "Assign Privileges", _INFORMATIONAL),
            "actor": {"user": _user(header.actor)},
            "user": _user(agent or header.run),
            "session": {"uid": header.run},
            "privileges": [tool or header.span],
            "status_id": status,
            "status": _STATUSES[status],
            "status_code": header.verdict,
            "message": f"{header.verdict} {body.get('case', '')}".strip(),
        }


def _activity(body: Mapping[str, Any]) -> tuple[int, str]:
    """Whether a call reads or writes, by what was reserved for it; unknown where it was turned away before that."""
    if not body.get("key"):
        return _UNKNOWN, "Unknown"
    return (_OTHER, "Write") if body["demand"][1] else (_READ, "Read")


def _class(of: tuple[int, int], activity: int, name: str, severity: int) -> Mapped:
    return {"category_uid": of[0], "class_uid": of[1], "activity_id": activity, "activity_name": name, "severity_id": severity}


def _user(principal: str) -> Mapped:
    """An agent is a service; a person stands in a header as a pseudonym."""
    if principal.startswith("agent/"):
        return {"uid": principal, "name": principal.rpartition("/")[2], "type_id": 4, "type": "Service"}
    if principal.startswith("<person:"):
        return {"uid": principal, "type_id": 1, "type": "User"}
    return {"uid": principal, "type_id": 3, "type": "System"}


def _api(leaf: Leaf, body: Mapping[str, Any], activity: tuple[int, str], status: int, severity: int) -> Mapped:
    header = leaf.header
    operation = str(body.get("tool") or header.type)
    request: Mapped = {"uid": f"{header.run}/{header.span}" if header.span else header.run}
    if "args" in body:
        request["data"] = _json_object(body["args"])
    return {
        **_class(_API, *activity, severity),
        "status_id": status,
        "status": _STATUSES[status],
        "actor": {"user": _user(header.actor)},
        "api": {"operation": operation, "service": {"name": "remit"}, "request": request},
        "src_endpoint": {"name": header.actor, "svc_name": "remit"},
        "message": f"{operation}: {header.verdict or header.type}",
    }


def _json_object(value: Json) -> Json:
    """OCSF's data fields hold objects."""
    return cast("Json", value) if isinstance(value, dict) else {"value": value}


def _lifecycle(leaf: Leaf, activity: int, name: str, severity: int) -> Mapped:
    header = leaf.header
    app = {"name": header.actor.rpartition("/")[2], "uid": header.actor, "vendor_name": header.tenant}
    if "release" in header.refs:
        app["version"] = header.refs["release"]
    return {
        **_class(_LIFECYCLE, activity, name, severity),
        "app": app,
        "message": f"{header.type} {header.run}",
    }


def _run_opened(leaf: Leaf, body: dict[str, Any]) -> Mapped:
    del body
    return _lifecycle(leaf, 3, "Start", _INFORMATIONAL)


def _run_resumed(leaf: Leaf, body: dict[str, Any]) -> Mapped:
    del body
    return _lifecycle(leaf, 5, "Restart", _INFORMATIONAL)


def _finding(leaf: Leaf, body: Mapping[str, Any], activity: tuple[int, str], status: tuple[int, str]) -> Mapped:
    header = leaf.header
    shown: Mapping[str, Any] = body.get("shown", body)
    title = str(shown.get("reason") or body.get("kind") or header.type)
    info: Mapped = {"uid": str(body.get("case") or f"{header.run}/{header.n}"), "title": title}
    rules = shown.get("rules", ())
    if rules:
        info["analytic"] = {"type_id": 1, "type": "Rule", "uid": ", ".join(rules)}
    return {
        **_class(_FINDING, *activity, _LOW),
        "finding_info": info,
        "status_id": status[0],
        "status": status[1],
        "resources": [{"type": "run", "uid": header.run}],
        "message": title,
    }


def _asked(leaf: Leaf, body: dict[str, Any]) -> Mapped:
    return {**_finding(leaf, body, (1, "Create"), (1, "New")), "is_alert": True}


def _case_decided(leaf: Leaf, body: dict[str, Any]) -> Mapped:
    return _finding(leaf, body, (3, "Close"), (4, "Resolved"))


def _entity_changed(leaf: Leaf, body: dict[str, Any]) -> Mapped:
    header = leaf.header
    name = str(body.get("principal") or body.get("release") or header.refs.get("release") or header.run)
    if leaf.type is EventType.RELEASE_APPROVED:
        activity, entity = (10, "Activate"), {"uid": name, "type_id": 5, "type": "Policy"}
    else:
        enabled = header.verdict == "enabled" or body.get("enabled") is True
        activity, entity = ((8, "Enable") if enabled else (9, "Disable")), {"uid": name, "type_id": 2, "type": "User"}
    return {
        **_class(_ENTITY, *activity, _LOW),
        "actor": {"user": _user(header.actor)},
        "entity": entity,
        "message": f"{header.type} {name}",
    }


def _on_record(leaf: Leaf, body: dict[str, Any]) -> Mapped:
    header = leaf.header
    activity = _ON_RECORD[leaf.type]
    mapped = _api(leaf, body, (activity.id, activity.name), activity.status, activity.severity)
    # Whatever a body calls its tool, what was called here is the record.
    mapped["api"]["operation"] = header.type
    mapped["message"] = header.type
    about = header.refs.get("run") or (header.run if not header.run.startswith("register-") else "")
    mapped["resources"] = [{"type": "run", "uid": about} if about else {"type": "record", "uid": header.tenant}]
    return mapped
