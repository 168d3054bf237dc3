"""4. Labelled: where each argument came from, and what kinds of data it holds."""

from __future__ import annotations

from msgspec.structs import replace

from remit.gate.call import Call, RunState
from remit.gate.verdicts import Deny
from remit.provenance.labels import label_arguments


def labelled(call: Call, run: RunState) -> Call | Deny:
    assert call.tool is not None
    if run.redactor.holds_credential(call.args):
        return Deny(code="credential_in_arguments", message="an argument holds a credential of the gateway")
    redacted = run.redactor.redact(call.args, call.tool.spec.classes)
    labels = label_arguments(call.args, run.seen, maps=call.tool.spec.maps, found=call.leaves)
    return replace(call, redacted=redacted, labels=labels)
