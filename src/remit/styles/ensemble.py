"""The style `ensemble`: several opinions on one question, formed apart, and what is done where they differ.

Each proposal is asked alone and given nothing of what the others said, so that a second model can't be talked round by
the first one's reasons. What enough of them say is taken. Where they differ it is named how, from one closed list; that,
with what each of them said, is on record, whatever comes of it. What stays open is asked of a person or escalated, as
the workflow says and in the same way every time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, NoReturn

from msgspec import Struct

from remit.errors import RunError
from remit.runs.run import NotCompleted, Run
from remit.values import Json, decode, encode

ENSEMBLE = "ensemble"
"""The kind under which an ensemble's outcome stands on record."""


class Disagreement(StrEnum):
    """How opinions on one thing stand to each other."""

    AGREE = "agree"
    """All who said something said the same."""
    VALUE_DIFFERS = "value_differs"
    """They give different numbers."""
    CATEGORY_DIFFERS = "category_differs"
    """They give different labels."""
    LOW_CONFIDENCE = "low_confidence"
    """One was less sure of it than the contract asks for; it does not count."""
    ABSTAINED = "abstained"
    """One said nothing at all, or too few said anything."""
    RULE_CONTRADICTS = "rule_contradicts"
    """One objects to acting at all. No majority outvotes that."""


class Opinion(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one of them says. Empty, it abstains, and `why` says why.

    `labels`: categories by what they are about. `values`: exact numbers likewise. `confidence_per_mille`: of each of
    them, where it is known. `objections`: what speaks against acting at all.
    """

    labels: Mapping[str, str] = {}
    values: Mapping[str, Decimal] = {}
    confidence_per_mille: Mapping[str, int] = {}
    objections: Sequence[str] = ()
    why: str = ""


class Difference(Struct, frozen=True, kw_only=True):
    """One finding: what it is about (empty for the whole), of which kind, and what each of those concerned said."""

    about: str
    kind: Disagreement
    said: Mapping[str, str]


class Consensus(Struct, frozen=True, kw_only=True):
    """How it came out. `answer`: what is taken, by what it is about. `open`: what nothing is taken for."""

    answer: Mapping[str, str]
    open: Sequence[str]
    differences: Sequence[Difference]
    opinions: Mapping[str, Opinion]
    by: str = "quorum"

    @property
    def kinds(self) -> frozenset[Disagreement]:
        """Every kind that was found."""
        return frozenset(each.kind for each in self.differences)

    @property
    def settled(self) -> bool:
        """Whether there is an answer to all that was asked, and no objection."""
        return not self.open and Disagreement.RULE_CONTRADICTS not in self.kinds

    @property
    def plain(self) -> dict[str, Json]:
        """As JSON, with what each of them said."""
        return decode(encode(self))

    @property
    def reason(self) -> str:
        """What keeps it open, in a line."""
        blocking = [each for each in self.differences if each.about in ("", *self.open) and each.kind is not Disagreement.AGREE]
        return "; ".join(map(_in_words, blocking)) or "no agreement"


Member = Callable[[], Awaitable[Opinion]]
"""One of the ensemble: asked without arguments, so with nothing of what the others say."""


@dataclass(frozen=True, kw_only=True)
class AskPerson:
    """When a person is asked instead of escalating: where everything that keeps it open is of these kinds.

    `of`, `within`: as `Run.ask` takes them. `choices`: what may be answered, by what it is about; anything where nothing
    is said.
    """

    of: str
    about: frozenset[Disagreement]
    within: str = "1d"
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])


def model_opinion(run: Run, model: str, *, labels: Sequence[str], text: str, title: str | None = None) -> Member:
    """What a model that the contract binds says of a text. A model that does not answer abstains."""

    async def propose() -> Opinion:
        given: dict[str, Json] = {"text": text, "decide": list(labels)} | ({"title": title} if title else {})
        try:
            answer: dict[str, Any] = await run.call(f"model:{model}", **given)
        except NotCompleted as ended:
            return Opinion(why=ended.message)
        return Opinion(
            labels={label: str(answer[label]["label"]) for label in labels if label in answer},
            confidence_per_mille={label: int(answer[label]["confidence_per_mille"]) for label in labels if label in answer},
        )

    return propose


async def ensemble(
    run: Run, *, decide: Sequence[str], proposals: Mapping[str, Member], quorum: int, asks: AskPerson | None = None
) -> Consensus:
    """Ask all of `proposals` at once and return what at least `quorum` of them say about each of `decide`.

    Returns only where that is settled, by them or by the person that `asks` names; else the run escalates. Raises
    `RunError` (code `quorum_impossible`) where fewer are asked than must agree.
    """
    if not 1 <= quorum <= len(proposals):
        message = f"a quorum of {quorum} can't come about among {len(proposals)}; ask more of them, or lower it"
        raise RunError(message, code="quorum_impossible")
    said = await run.gather(*(propose() for propose in proposals.values()))
    consensus = judge(dict(zip(proposals, said, strict=True)), decide=decide, quorum=quorum, floor=run.confidence_floor)
    await run.record(ENSEMBLE, consensus.plain)
    if consensus.settled:
        return consensus
    if asks is not None and _blocking(consensus) <= asks.about:
        return await _by_person(run, consensus, decide, asks)
    return await _escalated(run, consensus)


def judge(opinions: Mapping[str, Opinion], *, decide: Sequence[str], quorum: int, floor: int | None) -> Consensus:
    """What the opinions come to. Pure: the same opinions always come to the same."""
    answer: dict[str, str] = {}
    differences: list[Difference] = []
    for about in decide:
        taken, found = _about(about, opinions, quorum, floor or 0)
        differences += found
        if taken is not None:
            answer[about] = taken
    silent = {name: each.why or "nothing" for name, each in opinions.items() if not (each.labels or each.values or each.objections)}
    if silent:
        differences.append(Difference(about="", kind=Disagreement.ABSTAINED, said=silent))
    objecting = {name: "; ".join(each.objections) for name, each in opinions.items() if each.objections}
    if objecting:
        differences.append(Difference(about="", kind=Disagreement.RULE_CONTRADICTS, said=objecting))
    still_open = [about for about in decide if about not in answer]
    return Consensus(answer=answer, open=still_open, differences=differences, opinions=opinions)


def _about(about: str, opinions: Mapping[str, Opinion], quorum: int, floor: int) -> tuple[str | None, list[Difference]]:
    """What is taken for one thing, and how the opinions on it stand to each other."""
    given = {name: said for name, each in opinions.items() if (said := _said(each, about)) is not None}
    unsure = {name: said for name, said in given.items() if opinions[name].confidence_per_mille.get(about, 1000) < floor}
    counted = {name: said for name, said in given.items() if name not in unsure}
    votes: dict[str, int] = {}
    for said in counted.values():
        votes[said] = votes.get(said, 0) + 1
    found = list(_kinds(about, opinions, counted, unsure))
    most = max(votes.values(), default=0)
    leading = [said for said, count in votes.items() if count == most]
    if most >= quorum and len(leading) == 1:
        return leading[0], found
    if len(votes) < 2 and not unsure:
        found = [Difference(about=about, kind=Disagreement.ABSTAINED, said=counted)]
    return None, found


def _kinds(
    about: str, opinions: Mapping[str, Opinion], counted: Mapping[str, str], unsure: Mapping[str, str]
) -> Iterator[Difference]:
    if len(set(counted.values())) > 1:
        is_number = any(about in each.values for each in opinions.values())
        kind = Disagreement.VALUE_DIFFERS if is_number else Disagreement.CATEGORY_DIFFERS
        yield Difference(about=about, kind=kind, said=counted)
    elif counted:
        yield Difference(about=about, kind=Disagreement.AGREE, said=counted)
    if unsure:
        said = {name: f"{said} ({opinions[name].confidence_per_mille[about] / 1000:.3f})" for name, said in unsure.items()}
        yield Difference(about=about, kind=Disagreement.LOW_CONFIDENCE, said=said)


def _said(opinion: Opinion, about: str) -> str | None:
    """A label as it is, a number in its one plain spelling: `84.50` and `84.5` are the same."""
    if about in opinion.labels:
        return opinion.labels[about]
    if about in opinion.values:
        number = opinion.values[about]
        return f"{number.normalize() if number else Decimal(0):f}"
    return None


def _blocking(consensus: Consensus) -> frozenset[Disagreement]:
    """Of which kinds that is which keeps it open."""
    concerned = ("", *consensus.open)
    kinds = {each.kind for each in consensus.differences if each.about in concerned}
    return frozenset(kinds - {Disagreement.AGREE})


async def _by_person(run: Run, consensus: Consensus, decide: Sequence[str], asks: AskPerson) -> Consensus:
    """The answer of a person, who sees what each has said."""
    answer: Any = await run.ask(
        consensus.reason,
        of=asks.of,
        within=asks.within,
        draft={**dict.fromkeys(decide), **consensus.answer},
        answer=_schema(decide, asks.choices),
    )
    return Consensus(
        answer={about: str(answer[about]) for about in decide},
        open=[],
        differences=consensus.differences,
        opinions=consensus.opinions,
        by="person",
    )


def _schema(decide: Sequence[str], choices: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    of_each = {about: {"enum": list(choices[about])} if about in choices else {"type": "string", "minLength": 1} for about in decide}
    return {"type": "object", "properties": of_each, "required": list(decide), "additionalProperties": False}


async def _escalated(run: Run, consensus: Consensus) -> NoReturn:
    await run.escalate(consensus.reason, draft=consensus.plain)
    raise AssertionError


def _in_words(difference: Difference) -> str:
    said = ", ".join(f"{name}: {what}" for name, what in difference.said.items())
    about = f" on `{difference.about}`" if difference.about else ""
    return f"{difference.kind}{about} ({said})" if said else f"{difference.kind}{about}"
