"""What OCSF 1.8.0 asks of the classes and objects that Remit uses, encoded by hand from schema.ocsf.io.

An attribute's rule is its type, with `!` where it is required; `[x]` is a list of `x`. Attributes that Remit does not
use are left out, so that one it should not use is a problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

Rules = Mapping[str, str]

OBJECTS: Mapping[str, Rules] = {
    "actor": {"user": "user", "app_name": "string", "app_uid": "string"},
    "user": {"uid": "string", "name": "string", "type_id": "integer", "type": "string"},
    "api": {"operation": "string!", "request": "request", "response": "response", "service": "service", "version": "string"},
    "request": {"uid": "string!", "data": "json", "flags": "[string]"},
    "response": {"code": "integer", "error": "string", "error_message": "string", "message": "string", "data": "json"},
    "service": {"name": "string", "uid": "string", "version": "string"},
    "endpoint": {"name": "string", "uid": "string", "svc_name": "string", "ip": "string", "port": "integer"},
    "resource": {"uid": "string", "name": "string", "type": "string", "region": "string", "version": "string"},
    "authorization": {"decision": "string", "policy": "policy"},
    "policy": {"uid": "string", "name": "string", "version": "string", "desc": "string"},
    "product": {"name": "string", "uid": "string", "vendor_name": "string", "version": "string"},
    "finding_info": {"uid": "string!", "title": "string", "desc": "string", "analytic": "analytic", "types": "[string]"},
    "analytic": {"uid": "string", "name": "string", "type_id": "integer!", "type": "string"},
    "session": {"uid": "string", "created_time": "timestamp", "issuer": "string"},
    "entity": {"uid": "string", "name": "string", "type_id": "integer", "type": "string"},
    "metadata": {
        "version": "string!",
        "product": "product!",
        "uid": "string",
        "sequence": "integer",
        "event_code": "string",
        "correlation_uid": "string",
        "tenant_uid": "string",
        "log_name": "string",
        "original_time": "string",
        "profiles": "[string]",
    },
}

ONE_OF: Mapping[str, tuple[str, ...]] = {
    "actor": ("process", "user", "invoked_by", "session", "app_name", "app_uid"),
    "user": ("account", "name", "uid"),
    "endpoint": ("ip", "uid", "name", "hostname", "svc_name", "instance_uid", "interface_uid", "interface_name", "domain"),
    "entity": ("name", "uid", "device", "group", "org", "policy", "user"),
    "product": ("name", "uid"),
    "policy": ("name", "uid"),
    "service": ("name", "uid"),
    "resource": ("name", "uid"),
    "analytic": ("name", "uid"),
}

BASE: Rules = {
    "activity_id": "integer!",
    "activity_name": "string",
    "category_uid": "integer!",
    "class_uid": "integer!",
    "type_uid": "integer!",
    "severity_id": "integer!",
    "severity": "string",
    "time": "timestamp!",
    "metadata": "metadata!",
    "message": "string",
    "status": "string",
    "status_id": "integer",
    "status_code": "string",
    "status_detail": "string",
    "unmapped": "json",
}
SECURITY_CONTROL: Rules = {
    "action_id": "integer!",
    "action": "string",
    "disposition_id": "integer",
    "disposition": "string",
    "authorizations": "[authorization]",
    "is_alert": "boolean",
}
CLASSES: Mapping[int, Rules] = {
    6003: {"actor": "actor!", "api": "api!", "src_endpoint": "endpoint!", "resources": "[resource]"},
    6002: {"app": "product!"},
    2004: {"finding_info": "finding_info!", "resources": "[resource]", "is_alert": "boolean"},
    3003: {"actor": "actor", "user": "user!", "session": "session", "privileges": "[string]"},
    3004: {"actor": "actor", "entity": "entity!"},
}
ACTIVITIES: Mapping[int, Mapping[int, str]] = {
    6003: {0: "Unknown", 1: "Create", 2: "Read", 3: "Update", 4: "Delete"},
    6002: {3: "Start", 4: "Stop", 5: "Restart"},
    2004: {1: "Create", 2: "Update", 3: "Close"},
    3003: {1: "Assign Privileges", 2: "Assign Groups"},
    3004: {1: "Create", 3: "Update", 8: "Enable", 9: "Disable", 10: "Activate", 11: "Deactivate"},
}
STATUSES: Mapping[int, Mapping[int, str]] = {
    2004: {0: "Unknown", 1: "New", 2: "In Progress", 3: "Suppressed", 4: "Resolved", 5: "Archived", 6: "Deleted"},
}
ENUMS: Mapping[str, Mapping[int, str]] = {
    "severity_id": {0: "Unknown", 1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical", 6: "Fatal"},
    "status_id": {0: "Unknown", 1: "Success", 2: "Failure"},
    "action_id": {0: "Unknown", 1: "Allowed", 2: "Denied", 3: "Observed", 4: "Modified"},
    "disposition_id": {1: "Allowed", 2: "Blocked", 14: "Delayed", 25: "Rejected"},
    "user.type_id": {0: "Unknown", 1: "User", 2: "Admin", 3: "System", 4: "Service"},
    "entity.type_id": {1: "Device", 2: "User", 3: "Group", 4: "Organization", 5: "Policy"},
    "analytic.type_id": {0: "Unknown", 1: "Rule", 2: "Behavioral", 3: "Statistical"},
}
_TYPES: Mapping[str, type] = {"string": str, "integer": int, "boolean": bool, "timestamp": int}


def problems(event: Mapping[str, Any]) -> list[str]:
    """Everything in which an event is not as OCSF has it."""
    class_uid = event.get("class_uid", 0)
    if class_uid not in CLASSES:
        return [f"class {class_uid} is not known"]
    profiles: list[str] = event.get("metadata", {}).get("profiles", [])
    rules = {**BASE, **CLASSES[class_uid]}
    if "security_control" in profiles:
        rules |= SECURITY_CONTROL
    found = list(_object("", event, rules))
    if event["class_uid"] // 1000 != event["category_uid"]:
        found.append("category_uid is not that of the class")
    if event["type_uid"] != class_uid * 100 + event["activity_id"]:
        found.append("type_uid is not class_uid * 100 + activity_id")
    found += _named(event, "activity", ACTIVITIES[class_uid])
    found += _named(event, "status", STATUSES.get(class_uid, ENUMS["status_id"]))
    for name in ("severity", "action", "disposition"):
        found += _named(event, name, ENUMS[f"{name}_id"])
    if class_uid == 3003 and sum(name in event for name in ("privileges", "group")) != 1:
        found.append("just one of privileges and group")
    return found


def _named(event: Mapping[str, Any], name: str, known: Mapping[int, str]) -> Iterator[str]:
    """An id of the class's, and the caption that belongs to it; 99 is anything else, by a name of its own."""
    number, caption = event.get(f"{name}_id"), event.get("activity_name" if name == "activity" else name)
    if number is None:
        return
    if number == 99 and caption and caption not in known.values():
        return
    if number not in known or (caption is not None and known[number] != caption):
        yield f"{name}_id {number} is not {caption}"


def _object(path: str, value: Mapping[str, Any], rules: Rules) -> Iterator[str]:
    for name in value:
        if name not in rules:
            yield f"{path}{name} is not known"
    for name, rule in rules.items():
        if name in value:
            yield from _value(f"{path}{name}", value[name], rule.rstrip("!"))
        elif rule.endswith("!"):
            yield f"{path}{name} is missing"


def _value(path: str, value: Any, kind: str) -> Iterator[str]:
    if kind.startswith("["):
        if not isinstance(value, list) or not value:
            yield f"{path} is no list of anything"
            return
        for item in cast("list[Any]", value):
            yield from _value(path, item, kind.strip("[]"))
    elif kind == "json":
        if not isinstance(value, dict):
            yield f"{path} is no object"
    elif kind in _TYPES:
        if type(value) is not _TYPES[kind]:
            yield f"{path} is no {kind}"
        elif kind == "timestamp" and not 10**12 < value < 10**13:
            yield f"{path} is not in milliseconds"
    elif not isinstance(value, dict):
        yield f"{path} is no {kind}"
    else:
        yield from _known(path, cast("dict[str, Any]", value), kind)


def _known(path: str, given: Mapping[str, Any], kind: str) -> Iterator[str]:
    yield from _object(f"{path}.", given, OBJECTS[kind])
    if kind in ONE_OF and not set(given) & set(ONE_OF[kind]):
        yield f"{path} has none of {', '.join(ONE_OF[kind])}"
    types = ENUMS.get(f"{kind}.type_id")
    if types is not None and "type_id" in given and given.get("type") != types.get(given["type_id"]):
        yield f"{path}.type is not that of type_id"
