"""What a release is: all that shapes what a contract's runs do, as one JSON value with one digest.

To the contract's own files (see `LoadedContract.bundle`) it adds what the project says: the text behind every tool and
how it is found, read back and undone, the limits of the tenant, and the queues with their roles.

Who holds a role is not part of it. People come and go without a release; what a person may decide is asked when they
decide, and stands on record with the decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import msgspec

from remit.contracts.load import LoadedContract
from remit.contracts.project import Project
from remit.errors import ConfigError
from remit.tools.source import code_of
from remit.tools.spec import Tool, ToolSpec
from remit.values import Json


def spec_as_json(spec: ToolSpec) -> Json:
    """All that is declared of a tool."""
    plain: dict[str, Any] = {field.name: getattr(spec, field.name) for field in fields(spec)}
    retry = {"attempts": spec.retry.attempts, "backoff_ms": spec.retry.backoff_ms}
    return msgspec.to_builtins({**plain, "effects": sorted(spec.effects), "retry": retry})


def specs_of(bundle: Mapping[str, Any]) -> dict[str, ToolSpec]:
    """The tools of a release as they were declared. Raises `ConfigError` where one is not what its digest names."""
    found = {name: msgspec.convert(plain, ToolSpec) for name, plain in bundle.get("specs", {}).items()}
    granted: Mapping[str, str] = bundle["tools"]
    for name, spec in found.items():
        if granted.get(name, spec.digest) != spec.digest:
            raise ConfigError(f"tool `{name}` of the stored release is not what its digest names")
    return found


def bundle_of(loaded: LoadedContract, granted: Mapping[str, Tool], project: Project, tools: Mapping[str, Tool]) -> Json:
    """The bundle of a contract. `granted`: its tools, models among them; `tools`: every tool of the project."""
    specs = {name: tool.spec.digest for name, tool in granted.items()}
    return {
        **loaded.bundle(specs),
        # In full, so that what was decided under the release can be decided again when the tools are other ones.
        "specs": {name: spec_as_json(tool.spec) for name, tool in sorted(granted.items())},
        # All of them: a tool may be what undoes a granted one, or stand in a module with it.
        "tool_code": {name: code_of(tool) for name, tool in sorted({**tools, **granted}.items())},
        "limits": msgspec.to_builtins(project.limits),
        "queues": {name: sorted(queue.roles) for name, queue in project.queues.items()},
    }
