"""Why a run comes out otherwise: its release compared with the present one, part by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

_NAMED = {
    "code": "code",
    "prompts": "prompt",
    "tools": "tool schema",
    "tool_code": "tool code",
    "models": "model binding",
}
_WHOLE = {
    "policy": "policy",
    "input": "input schema",
    "output": "output schema",
    "limits": "limits of the project",
    "queues": "queues of the project",
}
_ALONE = frozenset({"code", "contract", "output schema", "input schema"})
"""What can change what a run does while every answer comes from the record."""


class PartChange(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a release that is not as it was: `code` `workflow.py`."""

    part: str
    name: str = ""

    @property
    def text(self) -> str:
        return f"{self.part} `{self.name}`" if self.name else self.part


def changes_between(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> list[PartChange]:
    """The parts in which two bundles differ, what shapes behaviour most first."""
    found: list[PartChange] = []
    for key, part in _NAMED.items():
        found += (PartChange(part=part, name=name) for name in _differing(recorded.get(key), present.get(key)))
    contract = _differing(recorded.get("contract"), present.get("contract"))
    found += (PartChange(part="contract", name=name) for name in contract)
    found += (PartChange(part=part) for key, part in _WHOLE.items() if recorded.get(key) != present.get(key))
    order = ["code", "contract", "prompt", "tool schema", "tool code", "policy", "model binding"]
    return sorted(found, key=lambda change: order.index(change.part) if change.part in order else len(order))


def _differing(one: Any, other: Any) -> Iterator[str]:
    before, now = (cast("Mapping[str, Any]", each or {}) for each in (one, other))
    yield from (name for name in sorted({*before, *now}) if before.get(name) != now.get(name))


def likely_cause(changes: list[PartChange] | None, *, same_release: bool, recorded_code: bool) -> str:
    """In words, why a replay over the recorded answers came out otherwise. `changes`: `None` where they aren't known."""
    chance = "code that isn't deterministic (it asks for the time, for chance or for files itself, not through its run)"
    if same_release or recorded_code:
        return f"the code is the one of the record, so: {chance}, or another version of Remit or of a library"
    if changes is None:
        return "the release is another one since, and what the earlier one was made of was not kept"
    alone = [change for change in changes if change.part in _ALONE]
    others = [change.text for change in changes if change.part not in _ALONE]
    if alone:
        also = f"; also changed, and without a say here: {', '.join(others)}" if others else ""
        return f"changed since: {', '.join(change.text for change in alone)}{also}"
    return f"changed since: {', '.join(others)}; as every answer comes from the record, rather {chance}"
