"""Located: which object the call is about, as the system of record says now."""

from __future__ import annotations

from msgspec.structs import replace

from remit.errors import ToolError
from remit.gate.call import Call, RunState
from remit.gate.context import ToolContexts
from remit.gate.execute import broke, is_out_of_reach, patiently, say
from remit.gate.verdicts import Defer, Deny, Reject
from remit.tools.spec import Resource
from remit.values import Json, decode, encode


class Located:
    """Asks the tool which object the call is about: policy decides on what the system of record says of it now.

    A system that does not answer is asked again as the tool's retry rule says. If it is out of reach then, nothing has
    been decided about the call: `system_unreachable` is no judgement, unlike an answer that makes no sense.
    """

    def __init__(self, contexts: ToolContexts) -> None:
        self._contexts = contexts

    async def __call__(self, call: Call, run: RunState) -> Call | Reject | Deny | Defer:
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
        locate, context, args = tool.locate, self._contexts.make(call, run), encode(call.args)
        try:
            # Arguments of its own each time: what a tool does to them must not show in what is judged.
            resource = await patiently(
                tool, lambda: self._contexts.within_timeout(tool, locate(context, decode(args)))
            )
        except (ToolError, TimeoutError) as error:
            if is_out_of_reach(error):
                message = f"the system of record could not be reached, and nothing was done: {say(error)}"
                return Defer(code="system_unreachable", message=message)
            if isinstance(error, ToolError) and error.code == "not_found":
                return Reject(code="object_not_found", message=say(error))
            return Deny(code="object_not_located", message=f"can't tell what the call is about: {say(error)}")
        except Exception as error:  # noqa: BLE001 - the boundary: whoever wrote the tool must find where it broke
            message = f"`locate` of tool `{tool.spec.name}` broke: {broke(error, locate, run)}"
            return Deny(code="gate_failed", message=message)
        # What the tool may keep for itself and change is not what is judged.
        attributes: dict[str, Json] = dict(resource.attributes)
        if tool.spec.resource_classes:
            # What a verifier says of the object, or its own change of it, must not tell what is concealed there.
            run.redactor.redact(attributes, tool.spec.resource_classes)
        return replace(call, resource=replace(resource, attributes=attributes))
