"""4. Labelled: where each argument came from, what kinds of data it holds, and which object it is about."""

from __future__ import annotations

from msgspec.structs import replace

from remit.errors import ToolError
from remit.gate.call import Call, RunState
from remit.gate.context import ToolContexts
from remit.gate.verdicts import Deny, Reject
from remit.provenance.labels import label_arguments
from remit.tools.spec import Resource


def labelled(call: Call, run: RunState) -> Call | Deny:
    assert call.tool is not None
    if run.redactor.holds_credential(call.args):
        return Deny(code="credential_in_arguments", message="an argument holds a credential of the gateway")
    redacted = run.redactor.redact(call.args, call.tool.spec.field_classes)
    return replace(call, redacted=redacted, labels=label_arguments(call.args, run.seen))


class Located:
    """Asks the tool which object the call is about: policy decides on what the system of record says of it now."""

    def __init__(self, contexts: ToolContexts) -> None:
        self._contexts = contexts

    async def __call__(self, call: Call, run: RunState) -> Call | Reject | Deny:
        tool = call.tool
        assert tool is not None
        if tool.locate is None:
            own = Resource(
                kind=tool.spec.resource_kind,
                id=tool.spec.name,
                tenant=run.authority.tenant,
                region=run.authority.region,
            )
            return replace(call, resource=own)
        context = self._contexts.make(call, run)
        try:
            resource = await self._contexts.within_timeout(tool, tool.locate(context, call.args))
        except ToolError as error:
            if error.code == "not_found":
                return Reject(code="object_not_found", message=error.message)
            return Deny(code="object_not_located", message=f"can't tell what the call is about: {error.message}")
        except TimeoutError:
            return Deny(code="object_not_located", message="the system of record did not say in time what this is about")
        return replace(call, resource=resource)
