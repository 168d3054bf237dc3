"""What a search finds: only what may be read, whatever is asked, in the same order on every database."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library import AGENT, MEMORY, desk, make_library, put

from remit import Remit
from remit.errors import ToolFailed
from remit.memory.documents import Viewer
from remit.memory.memory import Memory, Where

pytestmark = pytest.mark.anyio

NOTHING = "async def desk(run, request):\n    return {}\n"
WORDS = ["refund", "order", "parcel", "invoice", "account", "printer", "network", "password", "holiday", "contract", "delivery", "warranty"]
EXPECTED = Path(__file__).parent / "ranking.json"


@pytest.fixture
async def remit(tmp_path: Path, database_url: str) -> AsyncIterator[Remit]:
    shop = make_library(tmp_path / "shop", database_url)
    desk(shop, NOTHING)
    async with Remit(shop.folder) as opened:
        yield opened


def viewer(person: str | None = "anna", *, agent: str = AGENT, region: str = "eu") -> Viewer:
    return Viewer(principal=agent, on_behalf_of=None if person is None else f"person/{person}", region=region)


async def found(memory: Memory, query: str, who: Viewer, **more: Where) -> list[str]:
    return [each.chunk for each in await memory.search(query, who, most=50, **more)]


async def test_the_same_corpus_and_queries_give_the_same_ranking_on_every_database(remit: Remit) -> None:
    """The ranking stands in a file, which both databases are held to."""
    chance = random.Random(7)
    for number in range(60):
        text = "\n\n".join(" ".join(chance.choices(WORDS, k=120)) for _ in range(2))
        await put(remit, f"doc-{number}", text, title=chance.choice(WORDS))
    queries = [" ".join(chance.choices(WORDS, k=chance.randint(1, 5))) for _ in range(200)]
    ranked = {f"{at} {query}": (await found(remit.keeping.memory, query, viewer()))[:5] for at, query in enumerate(queries)}
    if not EXPECTED.exists():
        EXPECTED.write_text(json.dumps(ranked, indent=0) + "\n")
    assert ranked == json.loads(EXPECTED.read_text())


NAMES = [AGENT, "agent/shop/other", "person/anna", "person/kim", "role:care-lead", "role:nobody-has-it"]
ROLES = {"anna": set[str](), "kim": {"role:care-lead"}, "lee": {"role:care-lead"}, "nobody": set[str]()}


@given(
    documents=st.lists(st.tuples(st.sets(st.sampled_from(NAMES)), st.sampled_from(WORDS)), min_size=1, max_size=6),
    asked=st.lists(
        st.tuples(st.sampled_from([AGENT, "agent/shop/other"]), st.sampled_from([*ROLES, None]), st.sampled_from(["eu", "us"])),
        min_size=1,
        max_size=4,
    ),
    query=st.one_of(st.sampled_from(WORDS), st.text(min_size=1, max_size=20)),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whoever_may_not_read_a_document_never_gets_it_and_their_ranking_is_as_if_it_were_not_there(
    remit: Remit, documents: list[tuple[set[str], str]], asked: list[tuple[str, str | None, str]], query: str
) -> None:
    memory = remit.keeping.memory
    for info in memory.shelf.infos():
        if info.current is not None:
            await memory.recall(info.document, info.current)
    written = {f"d{at}": await put(remit, f"d{at}", f"{word} {word} about", *(readers or {"role:x"})) for at, (readers, word) in enumerate(documents)}
    for agent, person, region in asked:
        who = viewer(person, agent=agent, region=region)
        may_read = {
            f"d{at}@{written[f'd{at}']}#1"
            for at, (readers, _) in enumerate(documents)
            if region == "eu" and agent in readers and (person is None or _is_allowed(person, readers))
        }
        everything = set(await found(memory, " ".join(WORDS), who))
        assert everything == may_read
        assert set(await found(memory, query, who)) <= may_read


def _is_allowed(person: str, readers: set[str]) -> bool:
    return person != "nobody" and bool(readers & {f"person/{person}", *ROLES[person]})


async def test_what_may_not_be_read_changes_nothing_of_a_ranking(remit: Remit) -> None:
    memory = remit.keeping.memory
    await put(remit, "one", "refund refund parcel")
    await put(remit, "two", "parcel parcel refund order")
    before = await found(memory, "refund parcel", viewer())
    for number in range(30):
        await put(remit, f"hidden-{number}", "refund " * 50, "agent/shop/other", "person/kim")
    assert await found(memory, "refund parcel", viewer()) == before == ["one@1#1", "two@1#1"]


async def test_a_disabled_person_reads_nothing(remit: Remit) -> None:
    await put(remit, "one", "refund")
    assert await found(remit.keeping.memory, "refund", viewer()) == ["one@1#1"]
    await remit.administration.disable("person/anna")
    assert await found(remit.keeping.memory, "refund", viewer()) == []


async def test_only_the_newest_version_is_found_and_an_earlier_one_after_that_was_recalled(remit: Remit) -> None:
    memory = remit.keeping.memory
    await put(remit, "one", "refund within ten days")
    await put(remit, "one", "refund within five days")
    assert await found(memory, "refund", viewer()) == ["one@2#1"]
    done = await remit.keeping.recall("one", 2, token=remit.person_token("lee"), reason="wrong")
    assert (done.current, await found(memory, "refund", viewer())) == (1, ["one@1#1"])


async def test_what_is_out_of_date_is_not_found(remit: Remit) -> None:
    await put(remit, "old", "refund", valid_until=remit.clock() - 1)
    await put(remit, "new", "refund", valid_until=remit.clock() + 60_000_000)
    assert await found(remit.keeping.memory, "refund", viewer()) == ["new@1#1"]


async def test_where_narrows_what_is_looked_for(remit: Remit) -> None:
    await put(remit, "one", "refund", source="mail")
    await put(remit, "two", "refund", label="trusted")
    memory = remit.keeping.memory
    assert await found(memory, "refund", viewer(), where=Where(source="mail")) == ["one@1#1"]
    assert await found(memory, "refund", viewer(), where=Where(label="trusted")) == ["two@1#1"]


async def test_words_in_another_form_and_another_script_are_found(remit: Remit) -> None:
    await put(remit, "one", "Rückerstattungen dauern zehn Tage")
    await put(remit, "two", "退款政策 十天之内")
    await put(remit, "three", "the shop opens at nine")
    memory = remit.keeping.memory
    assert (await found(memory, "RUCKERSTATTUNG", viewer()))[0] == "one@1#1"
    assert (await found(memory, "退款", viewer()))[0] == "two@1#1"


async def test_another_embedding_is_refused_until_everything_is_embedded_anew(tmp_path: Path, database_url: str) -> None:
    shop = make_library(tmp_path / "shop", database_url)
    desk(shop, NOTHING)
    async with Remit(shop.folder) as remit:
        await put(remit, "one", "refund")
    (shop.folder / "embed.py").write_text("def lengths(texts):\n    return [[1.0, float(len(t))] for t in texts]\n")
    toml = shop.folder / "remit.toml"
    toml.write_text(toml.read_text().replace(MEMORY, f'{MEMORY}embedding = "embed.py:lengths"\n'))
    async with Remit(shop.folder) as remit:
        memory = remit.keeping.memory
        with pytest.raises(ToolFailed, match="remit memory reindex") as raised:
            await found(memory, "refund", viewer())
        assert raised.value.code == "embedding_mismatch"
        assert await memory.reindex(lambda _at, _total: None) == 1
        assert await found(memory, "refund", viewer()) == ["one@1#1"]
        assert await memory.reindex(lambda _at, _total: None) == 0
