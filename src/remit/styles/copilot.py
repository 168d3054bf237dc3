"""The style `copilot`: a model drafts, a person edits and approves, and what they approved is done.

The person's word is what counts: what they changed is kept on record as the difference to the draft, and is labelled
`person`; what they left as it was keeps the labels that it had.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from remit.runs.run import Run
from remit.values import Json

QUESTION = "edit this draft and hand it back; what you hand back is what is done, and `null` discards it"
"""What the person is asked."""

Then = Callable[[Any], Awaitable[Any]]
"""What is done with what the person approved: the gated write."""


async def copilot(
    run: Run,
    *,
    draft: Awaitable[Json],
    of: str,
    then: Then,
    within: str = "1d",
    answer: Mapping[str, Any] | None = None,
) -> Any:
    """Have something drafted, edited and approved, and then do it; what `then` returns.

    `draft`: where it comes from, such as a call of a model. `of`, `within`: who is asked and for how long, as `Run.ask` takes
    them. `answer`: the JSON Schema of what may be handed back. `then` is given that, and makes the gated write. Where nobody
    answers in time, and where they hand back `null`, the run escalates with the draft.
    """
    drafted = await draft
    schema = None if answer is None else {"anyOf": [dict(answer), {"type": "null"}]}
    approved = await run.ask(QUESTION, of=of, within=within, draft=drafted, answer=schema)
    if approved is None:
        await run.escalate("discarded: the person handed nothing back", draft=drafted)
    return await then(approved)
