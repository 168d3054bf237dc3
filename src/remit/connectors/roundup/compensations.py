"""How the writes of the tracker's tools are taken back: with which arguments, and what an issue looks like until then."""

from __future__ import annotations

from collections.abc import Mapping

from remit.connectors.roundup.client import OPEN
from remit.errors import ToolFailed
from remit.tools.spec import Resource
from remit.values import Json


def restore(args: Mapping[str, Json], result: Json, before: Resource | None) -> Mapping[str, Json]:
    """The values that the fields had before."""
    del result
    if before is None:
        raise ToolFailed("nothing is known of the values before; restore them by hand", code="not_located")
    return {"issue": args["issue"], "changes": {name: before.attributes[name] or None for name in args["changes"]}}


def left_by_update(args: Mapping[str, Json], result: Json, before: Resource | None) -> dict[str, str | int | bool]:
    """The fields as they were set."""
    del result, before
    return {name: value or "" for name, value in args["changes"].items()}


def same_issue(args: Mapping[str, Json], result: Json, before: Resource | None) -> Mapping[str, Json]:
    """The issue that was closed or made."""
    del args, before
    return {"issue": result["issue"]}


def left_by_closing(args: Mapping[str, Json], result: Json, before: Resource | None) -> dict[str, str | int | bool]:
    """How a closed issue stands."""
    del before
    return {"status": result["status"], "duplicate_of": args.get("duplicate_of") or 0}


def left_by_creation(args: Mapping[str, Json], result: Json, before: Resource | None) -> dict[str, str | int | bool]:
    """How a new issue stands while nobody has taken it up."""
    del result, before
    draft: Mapping[str, str] = args["draft"]
    drafted = {name: draft.get(name, "") for name in ("category", "priority")}
    return {"status": OPEN, **drafted, "assignee": "", "duplicate_of": 0}
