"""What a release is: all that shapes what a contract's runs do, as one JSON value with one digest.

To the contract's own files (see `LoadedContract.bundle`) it adds what the project says: the text behind every tool and
how it is found, read back and undone, the limits of the tenant, and the queues with their roles.

Who holds a role is not part of it. People come and go without a release; what a person may decide is asked when they
decide, and stands on record with the decision.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from remit.contracts.load import LoadedContract
from remit.contracts.project import Project
from remit.tools.source import code_of
from remit.tools.spec import Tool
from remit.values import Json


def bundle_of(loaded: LoadedContract, granted: Mapping[str, Tool], project: Project, tools: Mapping[str, Tool]) -> Json:
    """The bundle of a contract. `granted`: its tools, models among them; `tools`: every tool of the project."""
    specs = {name: tool.spec.digest for name, tool in granted.items()}
    return {
        **loaded.bundle(specs),
        # All of them: a tool may be what undoes a granted one, or stand in a module with it.
        "tool_code": {name: code_of(tool) for name, tool in sorted({**tools, **granted}.items())},
        "limits": msgspec.to_builtins(project.limits),
        "queues": {name: sorted(queue.roles) for name, queue in project.queues.items()},
    }
