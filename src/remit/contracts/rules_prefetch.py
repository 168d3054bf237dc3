"""The rules about `prefetch`: reads that are granted, that only read, and whose answers are kept until they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from remit.contracts.model import JsonSchema
from remit.contracts.problems import Problem, quoted
from remit.contracts.rules_input import leads_somewhere
from remit.contracts.subject import Subject


def prefetched_reads_are_kept(subject: Subject) -> Iterator[Problem]:
    """Each is a granted read with a time for which its answer is fresh; else it would be asked for twice."""
    granted = {action.tool for action in subject.actions}
    for at, wanted in enumerate(subject.prefetch):
        spec = subject.tool(wanted.tool)
        if wanted.tool not in granted:
            hint = "grant it under `actions`, or take it out"
            yield subject.error(("prefetch", at, "tool"), f"tool {quoted(wanted.tool)} is not granted", hint)
        elif spec is not None and not spec.is_pure_read:
            hint = "only reads can be begun before anybody has decided that they are needed"
            yield subject.error(("prefetch", at, "tool"), f"tool {quoted(wanted.tool)} does not only read", hint)
        elif spec is not None and not spec.fresh_ms:
            hint = "declare the tool with `fresh_ms`, so that the answer is kept until it is asked for"
            yield subject.error(("prefetch", at, "tool"), f"answers of {quoted(wanted.tool)} are not kept", hint)


def prefetches_ask_for_what_is_there(subject: Subject, schema: JsonSchema) -> Iterator[Problem]:
    """What they take of the request is a part that a request can have."""
    for at, wanted in enumerate(subject.prefetch):
        for name, value in wanted.args.items():
            path = value.removeprefix("request.") if isinstance(value, str) and value.startswith("request.") else None
            if path is not None and not leads_somewhere(schema, path.split(".")):
                message = f"the input schema has no {quoted(path)}"
                yield subject.error(("prefetch", at, "args", name), message, "name a part of the request")
