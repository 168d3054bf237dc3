"""A case as the person who decides it reads it: what is asked, where it came from, by when, and how to answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from remit.cli.layout import hanging
from remit.cli.readable import in_words, leaves, name_text, value_text
from remit.cli.run_list import loss_line
from remit.terminal import UNTRUSTED, clock_time, from_now, line, style_of

if TYPE_CHECKING:
    from remit.cases.cases import Case, Revealed
    from remit.journal.events import Event
    from remit.records.remains import Loss

_LABEL = 13
"""The column at which what is said of a case begins."""
_NAMES_END = 30
"""A name that reaches further has a line of its own, and doesn't push the values to the right."""


@dataclass(frozen=True, kw_only=True)
class CasePage:
    """One case, its question as the record has it, and its run's events, to be shown at `now`.

    `revealed`: the originals, where a person who may decide it asked for them.
    """

    case: Case
    question: Mapping[str, Any]
    events: list[Event]
    now: int
    width: int | None
    revealed: Revealed | None = None
    loss: Loss | None = None
    """What was destroyed of the run since."""

    def lines(self) -> list[Text]:
        """The whole page."""
        case, status = self.case, status_of(self.case, self.now)
        title = line((case.case, "bold"), f" · {case.kind} · ", (status, f"bold {style_of(status)}"))
        made = [title, *self._facts()]
        shown: Mapping[str, Any] = self.question.get("shown") or {}
        made.extend(self._call(shown) if shown else self._handed_over())
        if shown and self.revealed is not None:
            made.extend(self._request())
        made.extend([Text(""), *self._redacted()])
        if self.loss is not None:
            made.extend(hanging(line("  "), loss_line(self.loss), 4, self.width))
        made.extend(self._ways())
        return made

    def _facts(self) -> Iterator[Text]:
        case = self.case
        shown: Mapping[str, Any] = self.question.get("shown") or self.question
        opened: Mapping[str, Any] = self.events[0].body or {}
        contract = str(shown.get("contract") or opened.get("contract") or "erased")
        at = f"step {case.step} of {case.run}" if case.step else case.run
        behalf = f", on behalf of {opened['on_behalf_of']}" if opened.get("on_behalf_of") else ""
        yield from self._fact("asked by", f"contract {name_text(contract)}, {at}{behalf}")
        yield from self._fact("asked of", asked(case))
        yield from self._fact("opened", self._moment(case.opened_at))
        yield from self._deadlines()
        yield from self._fact("why", str(shown.get("reason") or case.reason))
        if shown.get("rules"):
            yield from self._fact("rule", ", ".join(str(rule) for rule in shown["rules"]))
        yield from self._decision()

    def _deadlines(self) -> Iterator[Text]:
        case = self.case
        if case.status != "open":
            return
        if case.due_at is not None and (case.expires_at is None or case.due_at < case.expires_at):
            yield from self._fact("due", self._moment(case.due_at))
        if case.expires_at is not None:
            name = "expires" if self.now <= case.expires_at else "expired"
            yield from self._fact(name, self._moment(case.expires_at))

    def _decision(self) -> Iterator[Text]:
        case = self.case
        if case.decided_at is None:
            return
        by = f"{case.decided_by}, " if case.decided_by else ""
        yield from self._fact(case.status, f"{by}{self._moment(case.decided_at)}")
        bodies: list[dict[str, Any]] = [event.body or {} for event in self.events if event.type.endswith(".decided")]
        said = [body["reason"] for body in bodies if body.get("case") == case.case and body.get("reason")]
        if said:
            yield from self._fact("reason", str(said[-1]))

    def _call(self, shown: Mapping[str, Any]) -> Iterator[Text]:
        yield Text("")
        yield from self._fact("the call", name_text(str(shown.get("tool"))), style="bold")
        originals: dict[str, Any] = {} if self.revealed is None else vars(self.revealed)
        yield from self._values(originals.get("args", shown.get("args")) or {}, shown.get("labels") or {})
        about: Mapping[str, Any] | None = originals.get("resource", shown.get("resource"))
        if about:
            kind, place = name_text(str(about.get("kind"))), (about.get("region"), about.get("tenant"))
            where = ", ".join(name_text(str(part)) for part in place if part)
            yield Text("")
            yield from self._fact("done to", f"{kind} {value_text(about.get('id'))} ({where})", style="bold")
            yield from self._values(about.get("attributes") or {}, {})

    def _handed_over(self) -> Iterator[Text]:
        """What a person who takes over starts from."""
        yield from self._request()
        draft = self.question.get("draft") if self.revealed is None else self.revealed.draft or self.question.get("draft")
        if draft is not None:
            yield Text("")
            yield from self._fact("its draft", "", style="bold")
            yield from self._values(draft, {}, units=True)

    def _request(self) -> Iterator[Text]:
        opened: Mapping[str, Any] = self.events[0].body or {}
        yield Text("")
        yield from self._fact("the request", "" if opened else "erased", style="bold")
        shown = opened.get("request", {}) if self.revealed is None else self.revealed.request
        yield from self._values(shown, {})

    def _redacted(self) -> Iterator[Text]:
        """That what is shown is not all, and how to see the rest; or that it was seen."""
        if self.revealed is not None:
            seen: list[dict[str, Any]] = [event.body or {} for event in self.events if event.type == "case.revealed"]
            said = f"these are the originals; that {seen[-1].get('by')} was shown them is on record"
        elif self._hides():
            said = f"`remit case {self.case.case} --as PERSON` shows the originals to who may decide, and records that"
        else:
            return
        yield from hanging(Text(""), line((said, "dim")), 2, self.width)
        yield Text("")

    def _hides(self) -> bool:
        """Whether something that is shown stands in place of an original which is still there."""
        hiding, names = self.events[0], ("request",)
        if self.case.kind == "question":
            hiding = [e for e in self.events if e.type == "case.opened" and e.header.span == self.case.step][-1]
            names = ("draft", "reason")
        elif self.question.get("shown"):
            names = ("args", "resource")
            hiding = [e for e in self.events if e.type == "call.decided" and e.header.span == self.case.step][-1]
        shown: dict[str, Any] = hiding.body or {}
        originals: dict[str, Any] = hiding.sealed or {}
        return any(name in originals and originals[name] != shown.get(name) for name in names)

    def _values(self, value: Any, labels: Mapping[str, list[str]], *, units: bool = False) -> Iterator[Text]:
        """Each value on a line of its own, and below it where it came from."""
        found = list(leaves(value)) if value != {} else []
        rows = [(path, *(in_words(path, item) if units else (path, value_text(item)))) for path, item in found]
        lengths = [len(name_text(name)) + 6 for _, name, _ in rows]
        indent = max((length for length in lengths if length <= _NAMES_END), default=_LABEL)
        for path, name, text in rows:
            head = line(f"    {name_text(name)}" if name else "    ")
            if head.cell_len + 2 > indent:
                yield from hanging(line("    "), line(name_text(name)), 6, self.width)
                head = Text("")
            yield from hanging(head, line(text), indent, self.width)
            sources = labels.get(path) or ()
            if sources:
                untrusted = any(source.startswith("untrusted") for source in sources)
                said = line((f"from {', '.join(sources)}", f"bold {UNTRUSTED}" if untrusted else "dim"))
                yield from hanging(Text(""), said, indent, self.width)

    def _ways(self) -> Iterator[Text]:
        case, status = self.case, status_of(self.case, self.now)
        if status == "expired":
            said = "nobody decided in time; `remit worker` lets the run go on without it"
            yield from hanging(line("  "), line(said if case.status == "open" else "nobody decided in time"), 4, self.width)
        elif status != "open":
            yield line(f"  see `remit show {case.run}`")
        elif case.kind == "question":
            yield line("  answer with")
            how = "--edit" if self.question.get("draft") is not None else "ANSWER"
            yield line("    ", (f"remit answer {case.case} {how} --as PERSON", "bold"))
        elif case.kind == "approval":
            yield line("  decide with")
            for command in ("approve", "deny"):
                yield line("    ", (f"remit {command} {case.case} --as PERSON --reason WHY", "bold"))
        else:
            yield line("  once it is handled, record that with")
            yield line("    ", (f"remit resolve {case.case} --as PERSON --reason HOW", "bold"))

    def _fact(self, name: str, said: str, *, style: str = "") -> Iterator[Text]:
        return hanging(line("  ", (name, "dim")), line((said, style)), _LABEL, self.width)

    def _moment(self, at: int) -> str:
        return f"{clock_time(at)} UTC, {from_now(at, self.now)}"


def status_of(case: Case, now: int) -> str:
    """How a case stands at `now`: nobody can decide an open one any more that has expired."""
    return "expired" if case.status == "open" and case.expires_at is not None and now > case.expires_at else case.status


def asked(case: Case) -> str:
    """Who is asked: roles, or the queue."""
    return ", ".join(role.removeprefix("role:") for role in case.roles) or case.queue.removeprefix("queue:")


def ends_at(case: Case) -> int | None:
    """By when somebody has to act: an approval expires; for anything else the queue's time counts."""
    return case.due_at if case.expires_at is None else case.expires_at
